"""Requests through vector cache, pools, device and engine, and over the worker's HTTP."""

import asyncio

import pytest

from app.core.errors import (
    BusyError,
    ContextOverflowError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidInputError,
    NotFoundError,
    SteeringError,
    WorkerUnavailableError,
)
from app.library.storage import ObjectStore
from app.method.backbone.loading import Backbone
from app.rpc.messages import EmbedRequest
from tests.fakes.answers import answer_of
from tests.fakes.models.backbones import lose_a_hook
from tests.fakes.servers.serving import (
    ENDLESS,
    Parts,
    png,
    request_of,
    running_parts,
)
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio


async def test_what_can_never_be_answered_is_refused(parts: Parts) -> None:
    for changes, kind in (
        ({"images": [b"no image"]}, InvalidImageError),
        ({"images": [png(side=1)]}, InvalidImageError),
        ({"max_tokens": 901}, InvalidInputError),
        ({"prompt": "  "}, InvalidInputError),
        ({"prompt": "long " * 1500}, ContextOverflowError),
        ({"vectors": [{**parts.use(0), "sha256": "0" * 64}]}, NotFoundError),
    ):
        with pytest.raises(kind):
            await answer_of(parts.serving, request_of(**changes))
    assert parts.serving.num_requests == 0


async def test_of_several_pictures_the_damaged_one_is_named(parts: Parts) -> None:
    damaged = png(side=64)[:60]
    asked = request_of(images=[png(), damaged])
    with pytest.raises(InvalidImageError, match=r"^images\.1: ") as caught:
        await answer_of(parts.serving, asked)
    assert caught.value.details["param"] == "images.1"
    items = EmbedRequest(images=(None, png(), damaged), questions=("a", None, None))
    with pytest.raises(InvalidImageError, match=r"^images\.1: "):
        await parts.serving.embed(items)


async def test_a_steered_request_that_is_not_steered_in_full_fails(
    parts: Parts, backbone: Backbone
) -> None:
    lose_a_hook(backbone)
    with pytest.raises(SteeringError):
        await answer_of(parts.serving, request_of(vectors=[parts.use(0)], baseline=True))
    assert (await answer_of(parts.serving, request_of())).text is not None


async def test_a_deadline_ends_a_request_and_frees_its_row(parts: Parts) -> None:
    with pytest.raises(DeadlineExceededError):
        await answer_of(parts.serving, request_of(**ENDLESS, deadline_seconds=0.05))
    await until(lambda: parts.device.num_running == 0)
    assert parts.serving.num_requests == 0


async def test_another_time_limit_that_is_over_is_not_told_as_the_deadline(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object, **_named: object) -> None:
        raise TimeoutError("a store")

    monkeypatch.setattr(parts.serving._preprocessor, "prepare", late)
    with pytest.raises(TimeoutError, match="a store"):
        await answer_of(parts.serving, request_of(deadline_seconds=60))


async def test_a_full_worker_says_so(backbone: Backbone, objects: ObjectStore) -> None:
    async with running_parts(backbone, objects, max_requests=2) as parts:
        outcomes = await asyncio.gather(
            *(answer_of(parts.serving, request_of()) for _ in range(5)), return_exceptions=True
        )
    busy = [one for one in outcomes if isinstance(one, BusyError)]
    assert len(busy) == 3
    assert all(one.retry_after_seconds for one in busy)


async def test_a_draining_worker_finishes_and_takes_nothing_new(parts: Parts) -> None:
    running = asyncio.create_task(answer_of(parts.serving, request_of(max_tokens=20)))
    await until(lambda: parts.serving.num_requests == 1)
    parts.serving.drain()
    with pytest.raises(WorkerUnavailableError):
        await answer_of(parts.serving, request_of())
    assert (await running).finish_reason in {"stop", "length"}


async def test_steering_beyond_the_highest_dose_is_refused(
    backbone: Backbone, objects: ObjectStore
) -> None:
    async with running_parts(backbone, objects, highest_dose=1e-3) as parts:
        with pytest.raises(InvalidInputError, match="wanted a dose of at most"):
            await answer_of(parts.serving, request_of(vectors=[parts.use(0)]))
        weak = await answer_of(parts.serving, request_of(vectors=[parts.use(0, 1e-6)]))
        assert weak.receipt.dose is not None
        assert 0 < weak.receipt.dose <= 1e-3
        assert (await answer_of(parts.serving, request_of())).receipt.dose is None
        # Opposite strengths cancel, so it is the sum that counts.
        both = [parts.use(0, 1.0), parts.use(0, -1.0)]
        assert (await answer_of(parts.serving, request_of(vectors=both))).receipt.dose == 0.0


async def test_requests_of_one_id_do_not_meet(parts: Parts) -> None:
    request = request_of(vectors=[parts.use(0)], baseline=True, request_id="mine")
    first, second = await asyncio.gather(*(answer_of(parts.serving, request) for _ in range(2)))
    assert first.token_ids == second.token_ids
    assert first.baseline == second.baseline
