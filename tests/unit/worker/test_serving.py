"""Requests through bank, pools, device and engine, and over the worker's HTTP."""

import asyncio
import io
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from app.core.errors import (
    BusyError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidInputError,
    NotFoundError,
    SteeringError,
    TooLargeError,
    WorkerUnavailableError,
)
from app.core.identifiers import sha256_hex
from app.core.settings import Settings
from app.core.vector_file import decode_vector_file
from app.library.storage import ObjectStore
from app.method.backbone import Backbone
from app.method.embedding import embed, space_id
from app.method.features import FeatureCache
from app.method.generation import generate
from app.method.prompts import build_prompt
from app.method.vectors import InContextVectors
from app.worker.bank import VectorBank
from app.worker.client import WorkerClient
from app.worker.demonstrations import DatasetPools
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.images import ImageLimits
from app.worker.messages import EmbedRequest, GenerateRequest, HealthResponse
from app.worker.server import create_app
from app.worker.serving import Limits, Serving
from tests.fakes.backbones import lose_a_hook, tiny_examples
from tests.fakes.parquet import write_parquet
from tests.fakes.vectors import make_vector_file
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio

DATASET = {"dataset_id": str(uuid.uuid4()), "storage_key": "datasets/colours.parquet"}


class Parts:
    """A serving worker without a database, and what it is made of."""

    def __init__(self, backbone: Backbone, objects: ObjectStore, *, max_requests: int) -> None:
        self.files = {
            sha256_hex(data): data
            for data in (make_vector_file(seed, backbone=backbone.description) for seed in (1, 2))
        }
        self.digests = list(self.files)
        self.engine = Engine(backbone, max_rows=4)
        self.device = DeviceThread(self.engine)
        features = FeatureCache(backbone)
        self.bank = VectorBank(backbone, device=self.device, fetch=self.fetch, num_slots=4)
        self.pools = DatasetPools(
            backbone, device=self.device, objects=objects, features=features, max_pools=1
        )
        self.serving = Serving(
            backbone,
            device=self.device,
            bank=self.bank,
            pools=self.pools,
            features=features,
            limits=Limits(
                max_requests=max_requests, max_new_tokens=900, image=ImageLimits.of(Settings())
            ),
        )

    async def fetch(self, digest: str) -> bytes:
        if digest not in self.files:
            raise NotFoundError("no such file")
        return self.files[digest]

    def shift(self, digest: str) -> torch.Tensor:
        tensors, _ = decode_vector_file(self.files[digest])
        return InContextVectors.from_tensors(tensors).shift()

    def use(self, place: int, strength: float = 1.0) -> dict[str, object]:
        return {
            "sha256": self.digests[place],
            "vector_id": str(uuid.uuid4()),
            "name": "colours",
            "version": place + 1,
            "strength": strength,
        }


@asynccontextmanager
async def _running(
    backbone: Backbone, objects: ObjectStore, *, max_requests: int = 16
) -> AsyncIterator[Parts]:
    parts = Parts(backbone, objects, max_requests=max_requests)
    parts.device.start()
    try:
        yield parts
    finally:
        parts.serving.close()
        await asyncio.to_thread(parts.device.stop)
        parts.engine.close()


@pytest.fixture
async def objects(tmp_path: Path) -> ObjectStore:
    store = ObjectStore((tmp_path / "objects").as_uri())
    path = write_parquet(tmp_path / "colours.parquet", tiny_examples(12))
    await store.put_file("datasets/colours.parquet", path)
    await store.put_file("datasets/other.parquet", path)
    return store


@pytest.fixture
async def parts(backbone: Backbone, objects: ObjectStore) -> AsyncIterator[Parts]:
    async with _running(backbone, objects) as running:
        yield running


def _png(colour: tuple[int, int, int] = (220, 30, 30), *, side: int = 16) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


def _request(**changes: object) -> GenerateRequest:
    fields = {"request_id": uuid.uuid4().hex, "prompt": "what color?", "max_tokens": 8, **changes}
    return GenerateRequest.model_validate(fields)


async def test_an_unsteered_answer_is_that_of_the_backbone(
    backbone: Backbone, parts: Parts
) -> None:
    answer = await parts.serving.generate(_request(images=[_png()]))
    image = Image.open(io.BytesIO(_png()))
    alone = generate(backbone, [build_prompt(backbone, "what color?", image)], max_new_tokens=8)[0]
    assert (answer.text, answer.token_ids) == (alone.text, alone.token_ids)
    assert answer.usage.prompt_tokens == alone.num_prompt_tokens
    assert (answer.receipt.sites_hit, answer.receipt.sites_expected) == (0, 0)
    assert answer.baseline is None
    assert answer.timings.total_ms >= answer.timings.decode_ms >= 0


async def test_vectors_steer_and_the_receipt_says_so(backbone: Backbone, parts: Parts) -> None:
    request = _request(
        images=[_png()], vectors=[parts.use(0, 1.5), parts.use(1, -0.5)], baseline=True
    )
    answer = await parts.serving.generate(request)
    prompt = build_prompt(backbone, "what color?", Image.open(io.BytesIO(_png())))
    shift = parts.shift(parts.digests[0]) * 1.5 - parts.shift(parts.digests[1]) * 0.5
    steered = generate(backbone, [prompt], shifts=shift[None], max_new_tokens=8)[0]
    plain = generate(backbone, [prompt], max_new_tokens=8)[0]
    assert answer.token_ids == steered.token_ids
    assert answer.baseline is not None
    assert answer.baseline.token_ids == plain.token_ids
    assert [(one.sha256, one.strength) for one in answer.receipt.vectors] == [
        (parts.digests[0], 1.5),
        (parts.digests[1], -0.5),
    ]
    assert answer.receipt.sites_hit == answer.receipt.sites_expected == 2 * backbone.num_layers
    assert answer.receipt.kl_first_token is not None
    assert answer.receipt.kl_first_token > 0


async def test_strength_zero_and_no_vector_answer_like_the_baseline(parts: Parts) -> None:
    at_zero = await parts.serving.generate(_request(vectors=[parts.use(0, 0.0)], baseline=True))
    without = await parts.serving.generate(_request(baseline=True))
    for answer in (at_zero, without):
        assert answer.baseline is not None
        assert answer.token_ids == answer.baseline.token_ids
        assert answer.receipt.kl_first_token == pytest.approx(0.0, abs=1e-6)
    assert at_zero.receipt.sites_hit > 0


async def test_many_requests_at_once_do_not_mix(parts: Parts) -> None:
    requests = [
        _request(
            prompt=f"what color is number {index}?",
            images=[_png((index * 20, 10, 200))] * (index % 3),
            vectors=[parts.use(index % 2, index / 4)] if index % 4 else [],
            temperature=0.9 if index % 5 == 0 else 0.0,
            seed=index,
        )
        for index in range(12)
    ]
    together = await asyncio.gather(*(parts.serving.generate(one) for one in requests))
    for request, answer in zip(requests, together, strict=True):
        alone = await parts.serving.generate(request)
        assert answer.token_ids == alone.token_ids
        assert answer.receipt == alone.receipt


async def test_random_demonstrations_follow_their_seed(parts: Parts) -> None:
    async def chosen(seed: int) -> list[str]:
        use = _request(demonstrations={**DATASET, "shots": 5, "seed": seed}).demonstrations
        assert use is not None
        return [one.id for one in await parts.pools.choose(use, question="which?", images=[])]

    assert await chosen(1) == await chosen(1)
    assert await chosen(1) != await chosen(2)


async def test_demonstrations_and_an_instruction_come_before_the_query(
    backbone: Backbone, parts: Parts
) -> None:
    use = _request(demonstrations={**DATASET, "shots": 3, "seed": 5}).demonstrations
    assert use is not None
    examples = await parts.pools.choose(use, question="what color?", images=[])
    answer = await parts.serving.generate(
        _request(demonstrations=use, instruction="Answer with one word.")
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
    image = Image.new("RGB", (16, 16), (30, 200, 30))
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


async def test_the_picture_that_is_asked_about_is_not_among_the_demonstrations(
    parts: Parts,
) -> None:
    example = tiny_examples(12)[0]
    use = _request(demonstrations={**DATASET, "shots": 10, "selection": "random"}).demonstrations
    assert use is not None
    chosen = await parts.pools.choose(use, question="which?", images=[example.image])
    assert all(one.image.tobytes() != example.image.tobytes() for one in chosen)
    with pytest.raises(InvalidInputError, match="wanted 10"):
        # Two of twelve show the picture, and two more that of the second query image.
        await parts.pools.choose(
            use, question="which?", images=[example.image, tiny_examples(12)[2].image]
        )


async def test_datasets_take_turns_in_memory_and_a_missing_one_is_reported(parts: Parts) -> None:
    for key in ("datasets/colours.parquet", "datasets/other.parquet", "datasets/colours.parquet"):
        use = {**DATASET, "storage_key": key, "shots": 1}
        await parts.serving.generate(_request(demonstrations=use))
        assert len(parts.pools._pools) == 1
    missing = {**DATASET, "storage_key": "datasets/none.parquet", "shots": 1}
    with pytest.raises(NotFoundError):
        await parts.serving.generate(_request(demonstrations=missing))


async def test_what_can_never_be_answered_is_refused(parts: Parts) -> None:
    for changes, kind in (
        ({"images": [b"no image"]}, InvalidImageError),
        ({"images": [_png(side=1)]}, InvalidImageError),
        ({"max_tokens": 901}, InvalidInputError),
        ({"prompt": "  "}, InvalidInputError),
        ({"prompt": "long " * 1500}, TooLargeError),
        ({"vectors": [{**parts.use(0), "sha256": "0" * 64}]}, NotFoundError),
    ):
        with pytest.raises(kind):
            await parts.serving.generate(_request(**changes))
    assert parts.serving.num_requests == 0


async def test_a_steered_request_that_is_not_steered_in_full_fails(
    parts: Parts, backbone: Backbone
) -> None:
    lose_a_hook(backbone)
    with pytest.raises(SteeringError):
        await parts.serving.generate(_request(vectors=[parts.use(0)], baseline=True))
    assert (await parts.serving.generate(_request())).text is not None


async def test_a_deadline_ends_a_request_and_frees_its_row(parts: Parts) -> None:
    with pytest.raises(DeadlineExceededError):
        await parts.serving.generate(
            _request(max_tokens=900, deadline_seconds=0.05, stop=["never"], seed=3, temperature=2)
        )
    await until(lambda: parts.device.num_running == 0)
    assert parts.serving.num_requests == 0


async def test_a_full_worker_says_so(backbone: Backbone, objects: ObjectStore) -> None:
    async with _running(backbone, objects, max_requests=2) as parts:
        outcomes = await asyncio.gather(
            *(parts.serving.generate(_request()) for _ in range(5)), return_exceptions=True
        )
    busy = [one for one in outcomes if isinstance(one, BusyError)]
    assert len(busy) == 3
    assert all(one.retry_after_seconds for one in busy)


async def test_a_draining_worker_finishes_and_takes_nothing_new(parts: Parts) -> None:
    running = asyncio.create_task(parts.serving.generate(_request(max_tokens=20)))
    await until(lambda: parts.serving.num_requests == 1)
    parts.serving.drain()
    with pytest.raises(WorkerUnavailableError):
        await parts.serving.generate(_request())
    assert (await running).finish_reason in {"stop", "length"}


async def test_embeddings_are_those_of_the_method(backbone: Backbone, parts: Parts) -> None:
    request = EmbedRequest(images=(_png(), None), questions=("what color?", "which?"))
    answer = await parts.serving.embed(request)
    image = Image.open(io.BytesIO(_png()))
    wanted = embed(backbone, [image, None], ["what color?", "which?"])
    np.testing.assert_allclose(np.array(answer.embeddings), wanted, atol=1e-6)
    assert (answer.space, answer.dim) == (space_id(backbone), wanted.shape[1])


def _over_http(backbone: Backbone, parts: Parts) -> tuple[WorkerClient, httpx.ASGITransport]:
    def health() -> HealthResponse:
        return HealthResponse(
            status="ready",
            backbone=backbone.description,
            space=space_id(backbone),
            running=parts.device.num_running,
            waiting=0,
            role="both",
        )

    transport = httpx.ASGITransport(
        app=create_app(parts.serving, health=health, max_body_bytes=100_000),
        raise_app_exceptions=False,
    )
    return WorkerClient(["http://worker"], transport=transport), transport


async def test_the_client_gets_answers_and_errors_over_http(
    backbone: Backbone, parts: Parts
) -> None:
    client, _ = _over_http(backbone, parts)
    async with client:
        request = _request(images=[_png()], vectors=[parts.use(0)], baseline=True)
        over_http = await client.generate(
            request, backbone_fingerprint=backbone.description.fingerprint
        )
        direct = await parts.serving.generate(request)
        assert over_http.token_ids == direct.token_ids
        assert over_http.receipt == direct.receipt
        found = await client.embed(EmbedRequest(images=(None,), questions=("which?",)))
        assert found.dim == len(found.embeddings[0])
        with pytest.raises(InvalidImageError):
            await client.generate(_request(images=[b"no image"]))
        with pytest.raises(DeadlineExceededError):
            await client.generate(
                _request(max_tokens=900, deadline_seconds=0.03, temperature=2, stop=["never"])
            )
        parts.serving.drain()
        with pytest.raises(WorkerUnavailableError) as caught:
            await client.generate(_request())
        assert caught.value.retry_after_seconds is not None


async def test_malformed_and_oversized_messages_are_refused_without_an_echo(
    backbone: Backbone, parts: Parts
) -> None:
    client, transport = _over_http(backbone, parts)
    await client.aclose()
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        malformed = await http.post("/generate", json={"prompt": "a secret", "request_id": 5})
        oversized = await http.post("/generate", content=b" " * 200_000)
        nothing = await http.post("/embed", content=b"\xff")
    assert malformed.status_code == 422
    assert malformed.json()["code"] == "invalid-input"
    assert "secret" not in malformed.text
    assert oversized.status_code == 413
    assert nothing.status_code in {400, 422}


async def test_a_client_that_leaves_frees_its_row(backbone: Backbone, parts: Parts) -> None:
    client, _ = _over_http(backbone, parts)
    async with client:
        asking = asyncio.create_task(
            client.generate(_request(max_tokens=900, temperature=2, stop=["never"]))
        )
        await until(lambda: parts.device.num_running == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: parts.device.num_running == 0)
        await until(lambda: parts.serving.num_requests == 0)


async def test_an_unexpected_failure_is_an_answer_and_not_a_traceback(
    backbone: Backbone, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_request: GenerateRequest) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(parts.serving, "generate", fail)
    client, transport = _over_http(backbone, parts)
    await client.aclose()
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        body = _request().model_dump(mode="json")
        answer = await http.post("/generate", json=body)
    assert answer.status_code == 500
    assert answer.json()["code"] == "error"
    assert "secret" not in answer.text
