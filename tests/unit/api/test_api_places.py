import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from app.api.dependencies import Services
from app.api.http.admission import Admission
from app.api.http.steady_bodies import SteadyBodies
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio


async def steer(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/steer/generate", json={"prompt": "What colour?", **body})


async def test_the_deadline_ends_the_request_and_the_work(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker.is_stuck = True
    hurried = services.settings.model_copy(update={"request_timeout_seconds": 0.5})
    monkeypatch.setitem(services.__dict__, "settings", hurried)
    response = await steer(http)
    assert (response.status_code, response.json()["code"]) == (504, "deadline-exceeded")
    assert (worker.num_cancelled, worker.running) == (len(worker.generated), 0)


async def test_a_worker_is_told_of_the_time_that_is_left(
    http: httpx.AsyncClient, worker: FakeWorker, services: Services
) -> None:
    began = time.monotonic()
    for stream in (False, True):
        assert (await steer(http, stream=stream)).status_code == 200
    limit = services.settings.request_timeout_seconds
    spent = time.monotonic() - began
    assert all(limit - spent < one.deadline_seconds < limit for one in worker.generated)
    assert [one.stream for one in worker.generated] == [False, True]


SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "path": "/steer/generate",
    "raw_path": b"/steer/generate",
    "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
}


def incoming_of(body: bytes) -> asyncio.Queue[Message]:
    """What a client sends that then waits."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
    return incoming


async def test_a_client_that_stays_and_reads_nothing_is_cut_off(
    api: FastAPI, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.steer.streaming.SEND_SLACK_SECONDS", 0.0)
    hurried = services.settings.model_copy(update={"request_timeout_seconds": 1.0})
    monkeypatch.setitem(services.__dict__, "settings", hurried)
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.sleep(120)

    async with asyncio.timeout(60):
        await api({**SCOPE}, incoming_of(b'{"prompt": "q", "stream": true}').get, send)
    assert sent == ["http.response.start", "http.response.body"]
    assert services.admission.in_flight == 0


async def test_a_client_that_leaves_frees_the_worker(
    api: FastAPI, worker: FakeWorker, services: Services
) -> None:
    worker.is_stuck = True
    sent: list[Message] = []
    incoming = incoming_of(b'{"prompt": "q"}')

    async def send(message: Message) -> None:
        sent.append(message)

    request = asyncio.create_task(api({**SCOPE}, incoming.get, send))
    await worker.wait_until_running(1)
    assert services.admission.in_flight == 1
    incoming.put_nowait({"type": "http.disconnect"})
    async with asyncio.timeout(120):
        await request
    assert sent[0]["status"] == 499
    assert (worker.num_cancelled, worker.running) == (1, 0)
    assert services.admission.in_flight == 0


async def test_a_sender_of_drops_keeps_no_place(
    http: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SteadyBodies.__init__.__kwdefaults__ or {}, "grace_seconds", 0.05)

    async def drops() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    response = await http.post("/steer/generate", content=drops())
    assert (response.status_code, response.json()["code"]) == (408, "request-timeout")
    assert response.json()["detail"].startswith("The body came at less than 32768 bytes")
    assert services.admission.in_flight == 0


async def test_requests_beyond_the_places_are_told_when_to_return(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker.is_stuck = True
    monkeypatch.setitem(
        services.__dict__, "admission", Admission(max_requests=2, max_bytes=10_000_000)
    )
    first = [asyncio.create_task(steer(http)) for _ in range(2)]
    await worker.wait_until_running(2)
    refused = await http.post("/steer/generate", content=b"not even read")
    assert (refused.status_code, refused.json()["code"]) == (429, "busy")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    worker.released.set()
    assert [response.status_code for response in await asyncio.gather(*first)] == [200, 200]
    assert (await steer(http)).status_code == 200
