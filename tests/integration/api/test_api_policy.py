"""Vectors that the server's policy adds to every answer."""

from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from tests.fakes.servers.streams import events_in
from tests.fakes.servers.worker import FakeWorker, backbone, embedding_of
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(settings: Settings) -> Settings:
    values = settings.model_dump() | {"policy_vectors": "safety@1=0.5"}
    return Settings.model_validate(values)


async def steer(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/steer/generate", json={"prompt": "What colour?", **body})


def sources(answer: dict[str, Any]) -> list[tuple[str, str, float]]:
    return [(use["name"], use["source"], use["strength"]) for use in answer["applied"]]


async def test_the_policy_is_added_to_whatever_was_chosen(
    http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, worker.description, name="safety")
    key = embedding_of(None, "What colour?")
    await store_vector(sessions, worker.description, seed=2, key=key)
    enforced = ("safety", "policy", 0.5)
    plain = (await steer(http)).json()
    assert (plain["text"], sources(plain)) == ("safety@1*0.5", [enforced])
    asked = await steer(http, vector="colours", strength=2)
    assert sources(asked.json()) == [("colours", "request", 2.0), enforced]
    assert asked.headers["x-vlibrary-vector"].count(",") == 1
    found = (await steer(http, vector="auto")).json()
    assert sources(found) == [("colours", "retrieval", 1.0), enforced]
    abstained = (await steer(http, vector="auto", prompt="How late is it?")).json()
    assert (sources(abstained), abstained["retrieval"]["abstained"]) == ([enforced], True)
    streamed = events_in((await steer(http, stream=True)).content)[-1][1]
    assert sources(streamed) == [enforced]


async def test_the_openai_routes_follow_it_too(
    http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, worker.description, name="safety")
    messages = [{"role": "user", "content": "q"}]
    body = {"model": "fake-a", "messages": messages}
    answer = (await http.post("/v1/chat/completions", json=body)).json()
    assert sources(answer["vlibrary"]) == [("safety", "policy", 0.5)]


async def test_retrieval_does_not_add_what_the_policy_has(
    http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
) -> None:
    key = embedding_of(None, "What colour?")
    await store_vector(sessions, worker.description, name="safety", key=key)
    assert sources((await steer(http, vector="auto")).json()) == [("safety", "policy", 0.5)]


async def test_what_the_policy_has_cannot_be_asked_for(
    http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, worker.description, name="safety")
    await store_vector(sessions, worker.description, name="copy")
    for vector in ("safety", {"ref": "safety@1", "strength": -0.5}, "copy"):
        response = await steer(http, vector=vector)
        assert (response.status_code, response.json()["code"]) == (422, "invalid-input")
    assert worker.generated == []


async def test_there_is_no_way_around_it(
    http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
) -> None:
    missing = await steer(http)
    assert (missing.status_code, missing.json()["code"]) == (500, "steering-failed")
    await store_vector(sessions, worker.description, name="safety")
    baseline = await steer(http, baseline=True)
    assert (baseline.status_code, baseline.json()["code"]) == (422, "invalid-input")
    assert worker.generated == []
    worker.forget_vectors = True
    assert (await steer(http)).json()["code"] == "steering-failed"


async def test_a_policy_for_another_backbone_lets_nothing_through(
    http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, backbone("b"), name="safety")
    for vector in (None, "auto"):
        response = await steer(http, vector=vector)
        assert (response.status_code, response.json()["code"]) == (409, "incompatible-backbone")
    assert worker.generated == []


class TestTwoNames:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        values = settings.model_dump() | {"policy_vectors": "safety@1=0.5,safety@latest"}
        return Settings.model_validate(values)

    async def test_a_policy_that_names_a_vector_twice_says_so(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, worker.description, name="safety")
        refused = await steer(http)
        assert (refused.status_code, refused.json()["code"]) == (500, "steering-failed")
        assert "name the same vector" in refused.json()["detail"]
        await store_vector(sessions, worker.description, name="safety", seed=2)
        assert len((await steer(http)).json()["applied"]) == 2
