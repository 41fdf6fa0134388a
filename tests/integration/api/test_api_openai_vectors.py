"""The OpenAI-compatible routes with stored vectors, asked by the real `openai` package."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.library.vectors import update_vector
from app.main import create_app
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker, backbone, client_of, embedding_of
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio

MODEL = "fake-a"
QUESTION: list[Any] = [{"role": "user", "content": "What colour?"}]


@pytest.fixture
def live_api(settings: Settings, worker: FakeWorker) -> FastAPI:
    return create_app(settings, workers=worker.client())


@pytest.fixture
def url(live_api: FastAPI) -> Iterator[str]:
    with serving(live_api) as address:
        yield f"{address}/v1"


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened


async def ask(client: openai.AsyncOpenAI, model: str, **options: object) -> dict[str, Any]:
    """The answer with what is beside OpenAI's words, and the header about vectors."""
    body: Any = {"model": model, "messages": QUESTION, **options}
    raw = await client.chat.completions.with_raw_response.create(**body)
    answer = raw.parse()
    header = raw.headers.get("x-vlibrary-vector")
    return {**answer.model_dump(), "header": header, "text": answer.choices[0].message.content}


async def test_the_model_names_the_vector(
    client: openai.AsyncOpenAI, worker: FakeWorker, sessions: Sessions
) -> None:
    record = await store_vector(sessions, worker.description)
    for ref in ("colours", "colours@1", "colours@latest", str(record.id)):
        answer = await ask(client, f"{MODEL}:{ref}")
        assert answer["text"] == "colours@1*1"
        assert answer["model"] == f"{MODEL}:{ref}"
        assert answer["header"] == f"colours@1:{record.sha256}:1.0"
        (applied,) = answer["vlibrary"]["applied"]
        assert (applied["sha256"], applied["source"]) == (record.sha256, "request")
        assert answer["vlibrary"]["receipt"]["sites_hit"] == 4


async def test_the_body_names_vectors(
    client: openai.AsyncOpenAI, worker: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, worker.description, name="a")
    await store_vector(sessions, worker.description, name="b", seed=2)
    extra = {"vector": ["a", {"ref": "b", "strength": -0.5}], "strength": 2, "baseline": True}
    answer = await ask(client, MODEL, extra_body={"vlibrary": extra})
    assert answer["text"] == "a@1*2+b@1*-0.5"
    assert answer["vlibrary"]["baseline"]["text"] == "plain"
    assert [use.split(":")[0] for use in answer["header"].split(",")] == ["a@1", "b@1"]


async def test_auto_retrieves_or_says_that_it_did_not(
    client: openai.AsyncOpenAI, worker: FakeWorker, sessions: Sessions
) -> None:
    key = embedding_of(None, "What colour?")
    await store_vector(sessions, worker.description, key=key)
    steered = await ask(client, f"{MODEL}:auto")
    assert steered["vlibrary"]["applied"][0]["source"] == "retrieval"
    assert steered["vlibrary"]["retrieval"]["abstained"] is False
    other: Any = [{"role": "user", "content": "How late is it?"}]
    plain = await ask(client, f"{MODEL}:auto", messages=other)
    assert (plain["vlibrary"]["applied"], plain["header"]) == ([], None)
    assert plain["vlibrary"]["retrieval"]["reason"] == "below-threshold"
    await store_vector(sessions, worker.description, name="twin", seed=2, key=key)
    unsure = await ask(client, f"{MODEL}:auto")
    assert unsure["vlibrary"]["retrieval"]["reason"] == "ambiguous"
    chosen = await ask(client, f"{MODEL}:auto", extra_body={"vlibrary": {"prefer": "twin"}})
    assert chosen["vlibrary"]["applied"][0]["name"] == "twin"
    with pytest.raises(openai.BadRequestError, match="auto"):
        await ask(client, MODEL, extra_body={"vlibrary": {"prefer": "twin"}})


async def test_a_stream_says_what_steers_it_at_once_and_proves_it_at_its_end(
    client: openai.AsyncOpenAI, worker: FakeWorker, sessions: Sessions
) -> None:
    record = await store_vector(sessions, worker.description)
    raw = await client.chat.completions.with_raw_response.create(
        model=f"{MODEL}:colours", messages=QUESTION, stream=True
    )
    assert raw.headers["x-vlibrary-vector"] == f"colours@1:{record.sha256}:1.0"
    chunks = [chunk async for chunk in raw.parse()]
    facts = chunks[-1].model_dump()["vlibrary"]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [use["sha256"] for use in facts["applied"]] == [record.sha256]


async def test_an_unproven_answer_is_never_given(
    client: openai.AsyncOpenAI, worker: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, worker.description)
    worker.forget_vectors = True
    with pytest.raises(openai.InternalServerError) as whole:
        await ask(client, f"{MODEL}:colours")
    assert whole.value.code == "steering-failed"
    stream = await client.chat.completions.create(
        model=f"{MODEL}:colours", messages=QUESTION, stream=True
    )
    with pytest.raises(openai.APIError) as streamed:
        assert [chunk async for chunk in stream] == []
    assert streamed.value.code == "steering-failed"


async def test_vectors_that_are_not_there_or_do_not_fit(
    client: openai.AsyncOpenAI, worker: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, backbone("b"), name="other")
    for model in (f"{MODEL}:nobody", f"{MODEL}:colours@7"):
        with pytest.raises(openai.NotFoundError, match="no vector") as missing:
            await ask(client, model)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="no vector nobody") as unknown:
        await ask(client, MODEL, extra_body={"vlibrary": {"vector": "nobody"}})
    assert (unknown.value.code, unknown.value.param) == ("not-found", "vlibrary.vector")
    steering = {"demonstrations": {"dataset": "nothing"}}
    with pytest.raises(openai.NotFoundError, match="no data set") as no_dataset:
        await ask(client, MODEL, extra_body={"vlibrary": steering})
    assert (no_dataset.value.code, no_dataset.value.param) == ("not-found", None)
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(client, f"{MODEL}:other")
    assert caught.value.code == "incompatible-backbone"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve(f"{MODEL}:other")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve(f"{MODEL}:nobody")
    assert worker.generated == []


async def test_vectors_are_models_until_they_are_retired(
    client: openai.AsyncOpenAI,
    worker: FakeWorker,
    *,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [await store_vector(sessions, worker.description, seed=seed) for seed in range(6)]
    async with sessions.begin() as session:
        await update_vector(session, records[1].id, status="unproven")
        await update_vector(session, records[5].id, status="retired")
    await store_vector(sessions, backbone("b"), name="other")
    found = [model async for model in client.models.list()]
    versions = [f"{MODEL}:colours@{version}" for version in (5, 4, 3, 2, 1)]
    assert [model.id for model in found] == [MODEL, *versions]
    assert found[1].created > 0
    one = await client.models.retrieve(f"{MODEL}:colours@3")
    assert (one.id, one.created) == (versions[2], found[3].created)
    monkeypatch.setattr("app.api.routes.openai.MAX_LISTED_VECTORS", 4)
    assert len([model async for model in client.models.list()]) == 5


class TestTwoBackbonesOfOneName:
    @pytest.fixture
    def twin(self) -> FakeWorker:
        return FakeWorker(description=replace(backbone("b"), name=MODEL))

    @pytest.fixture
    def live_api(self, settings: Settings, worker: FakeWorker, twin: FakeWorker) -> FastAPI:
        workers = client_of({"http://one": worker, "http://two": twin})
        return create_app(settings, workers=workers)

    async def test_the_vector_tells_which_is_meant(
        self,
        client: openai.AsyncOpenAI,
        worker: FakeWorker,
        *,
        twin: FakeWorker,
        sessions: Sessions,
    ) -> None:
        await store_vector(sessions, worker.description, name="a")
        await store_vector(sessions, twin.description, name="b", seed=2)
        for name, fingerprint in (("a", "a" * 64), ("b", "b" * 64)):
            by_model = await ask(client, f"{MODEL}:{name}")
            by_body = await ask(client, MODEL, extra_body={"vlibrary": {"vector": [name]}})
            for answer in (by_model, by_body):
                assert answer["text"] == f"{name}@1*1"
                assert answer["vlibrary"]["backbone"]["fingerprint"] == fingerprint
            assert (await client.models.retrieve(f"{MODEL}:{name}")).created > 0
        assert (len(worker.generated), len(twin.generated)) == (2, 2)

    async def test_without_one_the_ambiguity_is_refused(
        self,
        client: openai.AsyncOpenAI,
        worker: FakeWorker,
        *,
        twin: FakeWorker,
        sessions: Sessions,
    ) -> None:
        await store_vector(sessions, backbone("c"), name="other")
        for model in (MODEL, f"{MODEL}:auto"):
            with pytest.raises(openai.BadRequestError, match="Several backbones") as caught:
                await ask(client, model)
            assert caught.value.param == "model"
        with pytest.raises(openai.BadRequestError, match="Several backbones"):
            await client.embeddings.create(model=MODEL, input="x")
        with pytest.raises(openai.BadRequestError) as incompatible:
            await ask(client, f"{MODEL}:other")
        assert incompatible.value.code == "incompatible-backbone"
        with pytest.raises(openai.NotFoundError):
            await ask(client, f"{MODEL}:nobody")
        assert worker.generated == twin.generated == []

    async def test_each_id_is_listed_once(
        self,
        client: openai.AsyncOpenAI,
        worker: FakeWorker,
        *,
        twin: FakeWorker,
        sessions: Sessions,
    ) -> None:
        await store_vector(sessions, worker.description, name="a")
        await store_vector(sessions, twin.description, name="b", seed=2)
        found = [model.id async for model in client.models.list()]
        assert sorted(found) == [MODEL, f"{MODEL}:a@1", f"{MODEL}:b@1"]
        assert (await client.models.retrieve(MODEL)).id == MODEL
