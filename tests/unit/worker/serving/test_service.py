"""Requests through vector cache, pools, device and engine, and over the worker's HTTP."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from PIL import Image

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
from app.core.pictures import Picture
from app.core.pixels import decode
from app.library.storage import ObjectStore
from app.method.backbone.embedding import embed
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt
from app.method.keys.encoder import KeyEncoder
from app.method.steering.generation import generate
from app.rpc.messages import DemonstrationsUse, EmbedRequest, GenerateRequest, pack
from app.worker.serving.demonstrations import DatasetPools
from app.worker.serving.preprocessing import SEEN_TOGETHER
from tests.fakes.answers import answer_of
from tests.fakes.models.backbones import lose_a_hook, tiny_examples
from tests.fakes.servers.serving import (
    DATASET,
    ENDLESS,
    Parts,
    over_http,
    png,
    request_of,
    running_parts,
)
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio


async def test_an_unsteered_answer_is_that_of_the_backbone(
    backbone: Backbone, parts: Parts
) -> None:
    answer = await answer_of(parts.serving, request_of(images=[png()]))
    image = Picture.of(png())
    alone = generate(backbone, [build_prompt(backbone, "what color?", image)], max_new_tokens=8)[0]
    assert (answer.text, answer.token_ids) == (alone.text, alone.token_ids)
    assert answer.usage.prompt_tokens == alone.num_prompt_tokens
    assert (answer.receipt.sites_hit, answer.receipt.sites_expected) == (0, 0)
    assert answer.baseline is None
    assert answer.timings.total_ms >= answer.timings.decode_ms >= 0


async def test_vectors_steer_and_the_receipt_says_so(backbone: Backbone, parts: Parts) -> None:
    request = request_of(
        images=[png()], vectors=[parts.use(0, 1.5), parts.use(1, -0.5)], baseline=True
    )
    answer = await answer_of(parts.serving, request)
    prompt = build_prompt(backbone, "what color?", Picture.of(png()))
    shift = (
        parts.files.shift(parts.files.digests[0]) * 1.5
        - parts.files.shift(parts.files.digests[1]) * 0.5
    )
    steered = generate(backbone, [prompt], shifts=shift[None], max_new_tokens=8)[0]
    plain = generate(backbone, [prompt], max_new_tokens=8)[0]
    assert answer.token_ids == steered.token_ids
    assert answer.baseline is not None
    assert answer.baseline.token_ids == plain.token_ids
    assert [(one.sha256, one.strength) for one in answer.receipt.vectors] == [
        (parts.files.digests[0], 1.5),
        (parts.files.digests[1], -0.5),
    ]
    assert answer.receipt.sites_hit == answer.receipt.sites_expected == 2 * backbone.num_layers
    assert answer.receipt.kl_first_token is not None
    assert answer.receipt.kl_first_token > 0


async def test_strength_zero_and_no_vector_answer_like_the_baseline(parts: Parts) -> None:
    at_zero = await answer_of(parts.serving, request_of(vectors=[parts.use(0, 0.0)], baseline=True))
    without = await answer_of(parts.serving, request_of(baseline=True))
    for answer in (at_zero, without):
        assert answer.baseline is not None
        assert answer.token_ids == answer.baseline.token_ids
        assert answer.receipt.kl_first_token == pytest.approx(0.0, abs=1e-6)
    assert at_zero.receipt.sites_hit > 0


async def test_many_requests_at_once_do_not_mix(parts: Parts) -> None:
    requests = [
        request_of(
            prompt=f"what color is number {index}?",
            images=[png((index * 20, 10, 200))] * (index % 3),
            vectors=[parts.use(index % 2, index / 4)] if index % 4 else [],
            temperature=0.9 if index % 5 == 0 else 0.0,
            seed=index,
        )
        for index in range(12)
    ]
    together = await asyncio.gather(*(answer_of(parts.serving, one) for one in requests))
    for request, answer in zip(requests, together, strict=True):
        alone = await answer_of(parts.serving, request)
        assert answer.token_ids == alone.token_ids
        assert answer.receipt == alone.receipt


async def test_random_demonstrations_follow_their_seed(parts: Parts) -> None:
    async def chosen(seed: int) -> list[str]:
        use = request_of(demonstrations={**DATASET, "shots": 5, "seed": seed}).demonstrations
        assert use is not None
        return [one.id for one in await parts.pools.choose(use, question="which?", images=[])]

    assert await chosen(1) == await chosen(1)
    assert await chosen(1) != await chosen(2)


async def test_demonstrations_and_an_instruction_come_before_the_query(
    backbone: Backbone, parts: Parts
) -> None:
    use = request_of(demonstrations={**DATASET, "shots": 3, "seed": 5}).demonstrations
    assert use is not None
    examples = await parts.pools.choose(use, question="what color?", images=[])
    answer = await answer_of(
        parts.serving, request_of(demonstrations=use, instruction="Answer with one word.")
    )
    prompt = build_prompt(
        backbone,
        "what color?",
        (),
        demonstrations=examples,
        instruction="Answer with one word.",
    )
    alone = generate(backbone, [prompt], max_new_tokens=8)[0]
    assert answer.usage.prompt_tokens == alone.num_prompt_tokens
    assert answer.token_ids == alone.token_ids


async def test_nearest_demonstrations_are_the_most_similar_ones_nearest_last(
    backbone: Backbone, parts: Parts
) -> None:
    examples = tiny_examples(12)
    image = Picture.of(Image.new("RGB", (16, 16), (30, 200, 30)))
    use = GenerateRequest.model_validate(
        {
            "request_id": "r",
            "prompt": "p",
            "demonstrations": {**DATASET, "shots": 4, "selection": "nearest"},
        }
    ).demonstrations
    assert use is not None
    chosen = await parts.pools.choose(use, question="which colour is it?", images=[image])
    rows = embed(backbone, [one.image for one in examples], [one.question for one in examples])
    query = embed(backbone, [image], ["which colour is it?"])[0]
    order = np.argsort(rows @ query)[-4:]
    assert [one.question for one in chosen] == [examples[index].question for index in order]
    assert [one.answer for one in chosen] == [examples[index].answer for index in order]


async def test_balanced_demonstrations_have_as_many_answers_as_possible(parts: Parts) -> None:
    answers = {example.answer for example in tiny_examples(12)}
    shots = len(answers)
    use = request_of(
        demonstrations={**DATASET, "shots": shots, "selection": "balanced", "seed": 3}
    ).demonstrations
    assert use is not None
    chosen = await parts.pools.choose(use, question="which?", images=[])
    assert {one.answer for one in chosen} == answers
    again = await parts.pools.choose(use, question="which?", images=[])
    assert [one.id for one in again] == [one.id for one in chosen]


async def test_the_picture_that_is_asked_about_is_not_among_the_demonstrations(
    parts: Parts,
) -> None:
    first, third = tiny_examples(12)[0].pictures, tiny_examples(12)[2].pictures
    use = request_of(demonstrations={**DATASET, "shots": 10, "selection": "random"}).demonstrations
    assert use is not None
    chosen = await parts.pools.choose(use, question="which?", images=first)
    assert first[0].digest not in {one.image.digest for one in chosen if one.image is not None}
    with pytest.raises(InvalidInputError, match="wanted 10"):
        # Two of twelve show the picture, and two more that of the second query image.
        await parts.pools.choose(use, question="which?", images=[*first, *third])


async def test_datasets_take_turns_in_memory_and_a_missing_one_is_reported(
    backbone: Backbone, objects: ObjectStore, parts: Parts
) -> None:
    pools = DatasetPools(
        backbone,
        device=parts.device,
        objects=objects,
        features=FeatureCache(backbone),
        max_pools=1,
    )
    for key in ("datasets/colours.parquet", "datasets/other.parquet", "datasets/colours.parquet"):
        use = DemonstrationsUse.model_validate({**DATASET, "storage_key": key, "shots": 1})
        assert len(await pools.choose(use, question="which?", images=[])) == 1
        assert len(pools._pools) == 1
    missing = {**DATASET, "storage_key": "datasets/none.parquet", "shots": 1}
    with pytest.raises(NotFoundError):
        await answer_of(parts.serving, request_of(demonstrations=missing))


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


async def test_embeddings_are_those_of_the_method(backbone: Backbone, parts: Parts) -> None:
    request = EmbedRequest(images=(png(), None), questions=("what color?", "which?"))
    answer = await parts.serving.embed(request)
    image = Picture.of(png())
    keys = KeyEncoder(backbone)
    wanted = keys.encode([image, None], ["what color?", "which?"])
    np.testing.assert_allclose(np.array(answer.embeddings), wanted, atol=1e-6)
    assert (answer.space, answer.dim) == (keys.space, wanted.shape[1])


async def test_pictures_that_were_seen_are_decoded_beside_the_device(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EmbedRequest(images=(png(),), questions=(None,))
    first = await parts.serving.embed(request)
    threads: list[str] = []

    def watched(data: bytes) -> Image.Image:
        threads.append(threading.current_thread().name)
        return decode(data)

    monkeypatch.setattr("app.method.backbone.pictures.decode", watched)
    again = await parts.serving.embed(request)
    assert again.embeddings == first.embeddings
    assert threads
    assert not [name for name in threads if "device" in name]


async def test_the_client_gets_answers_and_errors_over_http(
    backbone: Backbone, parts: Parts
) -> None:
    client, _ = over_http(backbone, parts)
    async with client:
        request = request_of(images=[png()], vectors=[parts.use(0)], baseline=True)
        remote = await answer_of(client, request, fingerprint=backbone.description.fingerprint)
        direct = await answer_of(parts.serving, request)
        assert remote.token_ids == direct.token_ids
        assert remote.receipt == direct.receipt
        found = await client.embed(EmbedRequest(images=(None,), questions=("which?",)))
        assert found.dim == len(found.embeddings[0])
        with pytest.raises(InvalidImageError):
            await answer_of(client, request_of(images=[b"no image"]))
        with pytest.raises(DeadlineExceededError):
            await answer_of(client, request_of(**ENDLESS, deadline_seconds=0.03))
        parts.serving.drain()
        with pytest.raises(WorkerUnavailableError) as caught:
            await answer_of(client, request_of())
        assert caught.value.retry_after_seconds is not None


async def test_malformed_and_oversized_messages_are_refused_without_an_echo(
    backbone: Backbone, parts: Parts
) -> None:
    client, transport = over_http(backbone, parts)
    await client.aclose()
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        strange = msgpack.packb({"prompt": "a secret", "request_id": 5})
        malformed = await http.post("/generate", content=strange)
        oversized = await http.post("/generate", content=b" " * 200_000)
        nothing = await http.post("/embed", content=b"\xff")
    assert malformed.status_code == 422
    assert malformed.json()["code"] == "invalid-input"
    assert "secret" not in malformed.text
    assert oversized.status_code == 413
    assert malformed.json()["details"] == {"places": ["request_id"]}
    assert (nothing.status_code, nothing.json()["details"]) == (422, {"places": [""]})


async def test_a_client_that_leaves_frees_its_row(backbone: Backbone, parts: Parts) -> None:
    client, _ = over_http(backbone, parts)
    async with client:
        asking = asyncio.create_task(answer_of(client, request_of(**ENDLESS)))
        await until(lambda: parts.device.num_running == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: parts.device.num_running == 0)
        await until(lambda: parts.serving.num_requests == 0)


async def test_an_unexpected_failure_is_an_answer_and_not_a_traceback(
    backbone: Backbone, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_request: GenerateRequest) -> AsyncIterator[object]:
        raise ZeroDivisionError("a secret")
        yield

    monkeypatch.setattr(parts.serving, "generate", fail)
    client, transport = over_http(backbone, parts)
    await client.aclose()
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        answer = await http.post("/generate", content=pack(request_of()))
    assert answer.status_code == 500
    assert answer.json()["code"] == "error"
    assert "secret" not in answer.text


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


async def test_a_vector_acts_no_more_strongly_than_its_training_bore(
    backbone: Backbone, objects: ObjectStore
) -> None:
    async with running_parts(backbone, objects, highest_dose=1e3) as parts:
        dose = (await answer_of(parts.serving, request_of(vectors=[parts.use(0)]))).receipt.dose
        assert dose is not None
    async with running_parts(
        backbone, objects, highest_dose=1e3, metadata={"max_dose": f"{1.5 * dose:.6g}"}
    ) as parts:
        allowed = await answer_of(parts.serving, request_of(vectors=[parts.use(0, -1.5)]))
        assert allowed.receipt.dose == pytest.approx(1.5 * dose, rel=1e-3)
        # A sum may act more strongly than its parts, but no part than it bears.
        both = [parts.use(0, 1.4), parts.use(1, 0.01)]
        await answer_of(parts.serving, request_of(vectors=both))
        for wild in ([parts.use(0, 2.0)], [parts.use(0, -2.0)], [parts.use(0, 2.0), both[1]]):
            with pytest.raises(InvalidInputError, match="the largest strength is"):
                await answer_of(parts.serving, request_of(vectors=wild))


async def test_pictures_of_requests_that_come_together_are_seen_together(
    backbone: Backbone, parts: Parts
) -> None:
    passes: list[int] = []
    model: Any = backbone.model
    counting = model.model.vision_model.register_forward_hook(lambda *_: passes.append(1))
    requests = [request_of(images=[png((shade, 0, 0))]) for shade in range(100, 108)]
    answers = await asyncio.gather(*(answer_of(parts.serving, one) for one in requests))
    counting.remove()
    assert len(answers) == 8
    assert len(passes) < 8


async def test_requests_of_one_id_do_not_meet(parts: Parts) -> None:
    request = request_of(vectors=[parts.use(0)], baseline=True, request_id="mine")
    first, second = await asyncio.gather(*(answer_of(parts.serving, request) for _ in range(2)))
    assert first.token_ids == second.token_ids
    assert first.baseline == second.baseline


async def test_no_more_pictures_than_allowed_are_seen_in_one_pass(
    backbone: Backbone, objects: ObjectStore
) -> None:
    sizes: list[int] = []
    model: Any = backbone.model

    def note(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        sizes.append(len(kwargs["pixel_values"]))

    counting = model.model.vision_model.register_forward_pre_hook(note, with_kwargs=True)
    async with running_parts(backbone, objects, max_requests=64) as parts:
        requests = [request_of(images=[png((shade, 9, 0))]) for shade in range(60)]
        answers = await asyncio.gather(*(answer_of(parts.serving, one) for one in requests))
    counting.remove()
    assert len(answers) == 60
    assert 1 < max(sizes) <= SEEN_TOGETHER


async def test_a_prompt_with_more_pictures_than_one_pass_takes_leaves_none_behind(
    backbone: Backbone, parts: Parts
) -> None:
    sizes: list[int] = []
    model: Any = backbone.model

    def note(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        sizes.append(len(kwargs["pixel_values"]))

    counting = model.model.vision_model.register_forward_pre_hook(note, with_kwargs=True)
    reader = parts.serving._reader
    many = request_of(images=[png((9, shade, 0)) for shade in range(SEEN_TOGETHER + 1)])
    prepared = await reader.prepare(many)
    await parts.device.call(lambda: reader.encode(prepared))
    counting.remove()
    assert reader._waiting.empty()
    assert sum(sizes) == SEEN_TOGETHER + 1
    assert max(sizes) <= SEEN_TOGETHER


async def test_a_pass_takes_fewer_pictures_where_each_is_many_tiles(
    backbone: Backbone, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    model: Any = backbone.model

    def note(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        sizes.append(len(kwargs["pixel_values"]))

    counting = model.model.vision_model.register_forward_pre_hook(note, with_kwargs=True)
    reader = parts.serving._reader
    many = request_of(images=[png((7, shade, 0)) for shade in range(7)])
    passes = reader._features.passes
    one = passes.num_values(Picture.of(png((7, 0, 0))).size)
    monkeypatch.setattr("app.method.backbone.pictures.PASS_VALUES", 3 * one)
    prepared = await reader.prepare(many)
    seen_before = list(sizes)
    await parts.device.call(lambda: reader.encode(prepared))
    counting.remove()
    assert (seen_before, sizes) == ([3, 1], [3, 1, 3])


async def test_a_steered_image_request_is_one_task_of_the_device_thread(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its vector is on the device from here on.
    await answer_of(parts.serving, request_of(vectors=[parts.use(0)]))
    tasks: list[object] = []
    put = parts.device._put

    def counted(order: Any) -> None:  # noqa: ANN401
        tasks.append(order)
        put(order)

    monkeypatch.setattr(parts.device, "_put", counted)
    await answer_of(parts.serving, request_of(images=[png((1, 2, 3))], vectors=[parts.use(0)]))
    assert len(tasks) == 1
