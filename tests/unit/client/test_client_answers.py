import json
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import httpx
import pytest

from tests.fakes.servers.scripted_server import (
    Pieces,
    Scripted,
    ScriptedServer,
    answer_json,
    problem,
)
from vlibrary_client import (
    Answer,
    AsyncClient,
    BusyError,
    Client,
    ConnectionFailedError,
    Delta,
    InvalidResponseError,
    NotFoundError,
    RequestTimeoutError,
    SteeringError,
    VLibraryError,
    WorkerUnavailableError,
)
from vlibrary_client.calls.arguments import SteerOptions
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("kind", ["sync", "async"])
PING = b": ping\n\n"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []

    async def at_once(_self: AsyncTransport, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(SyncTransport, "sleep", lambda _self, seconds: waited.append(seconds))
    monkeypatch.setattr(AsyncTransport, "sleep", at_once)
    return waited


def event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def delta(text: str) -> bytes:
    return event("delta", {"text": text, "token_ids": [1], "logprobs": None, "newer": 1})


ANSWER = event("answer", answer_json())


def stream(*pieces: bytes, error: Exception | None = None) -> httpx.Response:
    headers = {"content-type": "text/event-stream"}
    return httpx.Response(200, stream=Pieces(*pieces, error=error), headers=headers)


class Reading:
    """What one client read of a stream."""

    def __init__(self, answers: Sequence[Scripted], *, kind: str) -> None:
        self.server = ScriptedServer(list(answers))
        self.deltas: list[Delta] = []
        self.answer: Answer | None = None
        self._kind = kind

    async def read(self, **options: Unpack[SteerOptions]) -> "Reading":
        if self._kind == "sync":
            with (
                Client(transport=self.server.transport, max_retries=2) as client,
                client.steer.stream("q", timeout=7.0, **options) as stream,
            ):
                self.deltas.extend(stream)
                self.answer = stream.answer
            return self
        async with (
            AsyncClient(transport=self.server.async_transport, max_retries=2) as async_client,
            async_client.steer.stream("q", timeout=7.0, **options) as async_stream,
        ):
            async for piece in async_stream:
                self.deltas.append(piece)
            self.answer = async_stream.answer
        return self


@BOTH
async def test_deltas_come_one_by_one_and_the_answer_at_the_end(kind: str) -> None:
    body = [PING, delta("re"), event("newer", {}), PING, delta("d") + ANSWER]
    found = await Reading([stream(*body)], kind=kind).read(vector="auto", logprobs=1)
    assert [piece.text for piece in found.deltas] == ["re", "d"]
    assert found.deltas[0].token_ids == (1,)
    assert found.answer is not None
    assert (found.answer.text, found.answer.applied[0].source) == ("red", "request")
    assert found.answer.applied[0].status == "unproven"
    (request,) = found.server.requests
    assert (request.method, request.url.path) == ("POST", "/steer/generate")
    assert request.headers["accept"] == "text/event-stream"
    assert request.extensions["timeout"]["read"] == 7.0
    asked = found.server.json()
    assert (asked["stream"], asked["vector"], asked["logprobs"]) == (True, "auto", 1)


@BOTH
async def test_log_probabilities_are_typed(kind: str) -> None:
    token = {"token_id": 3, "text": "red", "logprob": -0.5}
    taken = {**token, "top": [token]}
    body = event("delta", {"text": "red", "token_ids": [3], "logprobs": [taken]})
    ended = event("answer", answer_json(logprobs=[taken]))
    found = await Reading([stream(body, ended)], kind=kind).read()
    assert found.answer is not None
    assert found.deltas[0].logprobs == found.answer.logprobs
    assert found.answer.logprobs is not None
    assert found.answer.logprobs[0].top[0].logprob == -0.5


@BOTH
async def test_images_are_read_from_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"png")
    found = await Reading([stream(ANSWER)], kind=kind).read(images=[path])
    assert found.server.json()["images"] == ["cG5n"]


@BOTH
async def test_a_refusal_before_the_beginning_is_the_usual_error(kind: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        await Reading([problem(404, "not-found")], kind=kind).read()
    assert caught.value.request_id == "r-1"


@BOTH
async def test_a_busy_server_is_asked_again_when_it_said(kind: str, waits: list[float]) -> None:
    busy = problem(429, "busy", **{"retry-after": "3"})
    found = await Reading([busy, stream(delta("red"), ANSWER)], kind=kind).read()
    assert (len(found.deltas), waits) == (1, [3.0])
    with pytest.raises(BusyError):
        await Reading([busy], kind=kind).read()
    assert waits == [3.0] * 3


@BOTH
async def test_a_connection_that_cannot_be_opened_is_tried_again(
    kind: str, waits: list[float]
) -> None:
    refused = httpx.ConnectError("refused")
    hung_up = httpx.RemoteProtocolError("hung up")
    found = await Reading([refused, hung_up, stream(delta("red"), ANSWER)], kind=kind).read()
    assert (len(found.deltas), len(waits), len(found.server.requests)) == (1, 2, 3)
    with pytest.raises(ConnectionFailedError):
        await Reading([refused], kind=kind).read()
    assert len(waits) == 4


@BOTH
async def test_a_timeout_is_not_waited_for_twice(kind: str, waits: list[float]) -> None:
    with pytest.raises(RequestTimeoutError):
        await Reading([httpx.ReadTimeout("slow")], kind=kind).read()
    assert waits == []


@BOTH
@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        ({"retry_after_seconds": 3}, 3.0),
        ({"retry_after_seconds": "x"}, None),
        ({}, None),
        (1, None),
    ],
)
async def test_an_error_event_says_when_to_come_back(
    kind: str, details: object, seconds: float | None
) -> None:
    data = {"code": "worker-unavailable", "status": 503, "details": details}
    with pytest.raises(WorkerUnavailableError) as caught:
        await Reading([stream(event("error", data))], kind=kind).read()
    assert caught.value.retry_after_seconds == seconds


@BOTH
@pytest.mark.parametrize(
    ("data", "error", "status"),
    [
        ({"code": "steering-failed", "status": 500, "detail": "x"}, SteeringError, 500),
        ({"code": "busy", "status": 429, "request_id": "r-2"}, BusyError, 429),
        ({"code": "from-the-future", "status": "odd"}, VLibraryError, 500),
        ([1], VLibraryError, 500),
    ],
)
async def test_an_error_event_is_raised_and_nothing_is_repeated(
    *, kind: str, data: object, error: type[VLibraryError], status: int, waits: list[float]
) -> None:
    reading = Reading([stream(delta("re"), event("error", data))], kind=kind)
    with pytest.raises(error) as caught:
        await reading.read()
    assert [piece.text for piece in reading.deltas] == ["re"]
    assert caught.value.status == status
    assert (waits, len(reading.server.requests)) == ([], 1)


@BOTH
@pytest.mark.parametrize("error", [None, httpx.ReadError("gone"), httpx.RemoteProtocolError("x")])
async def test_a_stream_that_breaks_off_is_an_error(kind: str, error: Exception | None) -> None:
    reading = Reading([stream(delta("re"), error=error)], kind=kind)
    with pytest.raises(ConnectionFailedError):
        await reading.read()
    assert (len(reading.deltas), len(reading.server.requests)) == (1, 1)


@BOTH
@pytest.mark.parametrize("body", [event("delta", {"text": 3}), event("answer", {}), b"data"])
async def test_what_cannot_be_read_is_an_error(kind: str, body: bytes) -> None:
    with pytest.raises((InvalidResponseError, ConnectionFailedError)):
        await Reading([stream(body)], kind=kind).read()


@BOTH
async def test_there_is_no_answer_before_the_end(kind: str) -> None:
    server = ScriptedServer([stream(delta("re"), delta("d"), ANSWER)])
    if kind == "sync":
        with Client(transport=server.transport) as client:
            with client.steer.stream("q") as stream_:
                next(stream_)
            assert list(stream_) == []
            with pytest.raises(VLibraryError, match="not complete"):
                _ = stream_.answer
        return
    async with AsyncClient(transport=server.async_transport) as async_client:
        async with async_client.steer.stream("q") as async_stream:
            await anext(async_stream)
        with pytest.raises(VLibraryError, match="not complete"):
            _ = async_stream.answer
