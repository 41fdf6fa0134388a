import asyncio
import time
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from fastapi import Request, Response
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.types import Message

from app.api.dependencies import Services
from app.api.routes.steering import _Writer
from app.api.schemas.steering import SteerRequest
from app.api.steer.streaming import AnswerStream, Responder
from app.rpc.generation import AppliedVector, GenerateResponse
from app.rpc.messages import ErrorBody, GenerateRequest
from tests.fakes.servers.streams import events_in
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio


async def stream(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    content = {"prompt": "What colour?", "stream": True, **body}
    return await http.post("/steer/generate", json=content)


async def test_deltas_come_before_the_answer_and_are_its_text(http: httpx.AsyncClient) -> None:
    response = await stream(http, baseline=True)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert "x-vlibrary-vector" not in response.headers
    *deltas, (kind, answer) = events_in(response.content)
    assert {kind for kind, _ in deltas} == {"delta"}
    assert "".join(data["text"] for _, data in deltas) == answer["text"] == "plain"
    assert [data["token_ids"] for _, data in deltas] == [[index] for index in range(5)]
    assert kind == "answer"
    assert (answer["applied"], answer["baseline"]["text"]) == ([], "plain")
    assert answer["id"] == response.headers["x-request-id"]


async def test_a_stream_ends_with_what_is_answered_without_one(http: httpx.AsyncClient) -> None:
    streamed = events_in((await stream(http, logprobs=2)).content)[-1][1]
    whole = (await stream(http, logprobs=2, stream=False)).json()
    assert {**whole, "id": ""} == {**streamed, "id": ""}
    assert [token["text"] for token in whole["logprobs"][0]["top"]] == ["a", "b"]


async def test_log_probabilities_are_in_the_deltas(http: httpx.AsyncClient) -> None:
    first, second, *_ = events_in((await stream(http, logprobs=1)).content)
    assert first[1]["logprobs"][0]["logprob"] == -1.0
    assert second[1]["logprobs"] is None


async def test_the_worker_is_told_how_to_sample(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    settings: dict[str, Any] = {
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.5,
        "logprobs": 0,
    }
    assert (await stream(http, **settings)).status_code == 200
    asked = worker.generated[0].model_dump()
    assert {name: asked[name] for name in settings} == settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", 11),
        ("logprobs", 21),
        ("logprobs", -1),
        ("stream", "yes"),
    ],
)
async def test_what_is_out_of_bounds_is_refused_with_its_place(
    http: httpx.AsyncClient, worker: FakeWorker, *, field: str, value: object
) -> None:
    response = await stream(http, **{field: value})
    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] == f"body.{field}"
    assert worker.generated == []


@pytest.mark.parametrize(
    ("code", "status"), [("busy", 429), ("worker-unavailable", 503), ("invalid-input", 422)]
)
async def test_what_fails_before_the_first_token_has_its_status(
    http: httpx.AsyncClient, worker: FakeWorker, *, code: str, status: int
) -> None:
    worker.error = ErrorBody(code=code, message="wanted x, found y")
    response = await stream(http)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"images": ["zzz"]}, 422), ({"max_tokens": 65}, 422), ({"vector": "colours"}, 503)],
)
async def test_what_cannot_be_asked_has_its_status(
    http: httpx.AsyncClient, body: dict[str, Any], status: int
) -> None:
    assert (await stream(http, **body)).status_code == status


async def test_a_worker_that_dies_at_once_is_a_status(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.breaks_after = 0
    response = await stream(http)
    assert (response.status_code, response.json()["code"]) == (503, "worker-unavailable")


async def test_a_worker_that_dies_later_is_an_event(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.breaks_after = 2
    response = await stream(http)
    assert response.status_code == 200
    *deltas, (kind, problem) = events_in(response.content)
    assert [data["text"] for _, data in deltas] == ["p", "l"]
    assert kind == "error"
    assert (problem["status"], problem["code"]) == (503, "worker-unavailable")
    assert problem["details"]["retry_after_seconds"] >= 1
    assert problem["request_id"] == response.headers["x-request-id"]


async def test_an_unproven_answer_is_an_error_and_not_an_answer(
    http: httpx.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = worker._answer

    def dishonest(request: GenerateRequest) -> GenerateResponse:
        answer = honest(request)
        applied = (AppliedVector(sha256="b" * 64, strength=1.0),)
        receipt = answer.receipt.model_copy(update={"vectors": applied})
        return answer.model_copy(update={"receipt": receipt})

    monkeypatch.setattr(worker, "_answer", dishonest)
    kinds = [kind for kind, _ in events_in((await stream(http)).content)]
    assert "answer" not in kinds
    assert kinds[-1] == "error"


async def test_a_crash_in_the_stream_tells_the_log_and_not_the_caller(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_writer: object, _item: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("app.api.routes.steering._Writer.events", crash)
    response = await stream(http)
    ((kind, problem),) = events_in(response.content)
    assert (kind, problem["code"]) == ("error", "internal")
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/steer/generate", {"prompt": "q"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "q"}]}),
        ("/v1/completions", {"prompt": "q"}),
        ("/v1/responses", {"input": "q"}),
    ],
)
async def test_an_event_stays_whole_where_clients_take_any_end_of_line_for_one(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    *,
    path: str,
    body: dict[str, Any],
) -> None:
    honest = worker._answer
    monkeypatch.setattr(
        worker, "_answer", lambda asked: honest(asked).model_copy(update={"text": "a\u2028\x85b"})
    )
    model = {} if path == "/steer/generate" else {"model": "fake-a"}
    response = await http.post(path, json={**model, **body, "stream": True})
    assert response.status_code == 200
    assert r"\u2028" in response.text
    # `httpx` ends lines there as well, and many clients read events by its lines.
    assert [line async for line in response.aiter_lines()] == response.text.split("\n")[:-1]


async def test_the_place_is_given_back_when_the_stream_is_over(
    http: httpx.AsyncClient, services: Services
) -> None:
    await stream(http)
    assert services.admission.in_flight == 0


async def test_a_stream_begins_when_its_client_has_waited_since_its_request_was_read(
    services: Services, worker: FakeWorker
) -> None:
    worker.is_stuck, worker.sticks_at = True, 0

    async def receive() -> Message:
        return await asyncio.Future()

    state = {"read_at": time.monotonic() - services.settings.early_stream_seconds}
    request = Request({"type": "http", "state": state}, receive)
    asked = SteerRequest(prompt="What colour?", stream=True)
    responder = Responder(services=services, request=request, response=Response())
    answer = await responder.respond([asked], _Writer())
    assert isinstance(answer, AnswerStream)
    async with aclosing(answer._events) as events:
        assert await anext(events) == KEEPALIVE_COMMENT
    assert worker.running == 0
