"""Clients that hang up in mid-answer, over a real socket, counted in steps of the engine."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import uvicorn
from prometheus_client import generate_latest
from starlette.types import Message

from app.method.backbone.loading import Backbone
from app.rpc.messages import GenerateRequest, pack
from app.worker.serving.server import CLIENT_GONE, create_app
from tests.fakes.exposition import parse_metrics
from tests.fakes.servers.gated_worker import GatedWorker, gated_worker
from tests.fakes.waiting import SECONDS, until

pytestmark = pytest.mark.anyio

ANSWERING = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class _Server(uvicorn.Server):
    """Leaves the signals of the test's process alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _served(backbone: Backbone, *, max_rows: int) -> AsyncIterator[tuple[GatedWorker, int]]:
    async with gated_worker(backbone, max_rows=max_rows) as worker:
        app = create_app(worker.serving, health=worker.health, max_body_bytes=100_000)
        config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
        server = _Server(config)
        running = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        try:
            yield worker, server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            await running


async def _ask(port: int, *, stream: bool) -> asyncio.StreamWriter:
    """The connection of a client that has sent a request for a long answer."""
    request = GenerateRequest(
        request_id=uuid.uuid4().hex,
        prompt="what color?",
        max_tokens=800,
        temperature=2.0,
        presence_penalty=-2.0,
        stream=stream,
    )
    body = b"".join(pack(request))
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        "POST /generate HTTP/1.1\r\nhost: worker\r\ncontent-type: {PACKED}\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    return writer


async def _leave(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(SECONDS):
        writer.close()
        await writer.wait_closed()


async def _take_until_one_waits(worker: GatedWorker, *, running: int) -> None:
    """Take steps until so many run and one more has come that finds no row."""
    async with asyncio.timeout(SECONDS):
        while (worker.device.num_running, worker.gate.num_waiting) != (running, 1):
            await worker.gate.take(1)


def _cancelled(worker: GatedWorker, stage: str) -> float:
    shown = parse_metrics(generate_latest(worker.metrics.registry).decode())
    return shown.get(f'vlibrary_cancelled_total{{stage="{stage}"}}', 0.0)


@ANSWERING
async def test_a_client_that_leaves_frees_its_row_within_one_step(
    backbone: Backbone, *, stream: bool
) -> None:
    async with _served(backbone, max_rows=2) as (worker, port):
        worker.gate.is_shut = True
        client = await _ask(port, stream=stream)
        await worker.gate.take(5)
        assert worker.device.num_running == 1
        await _leave(client)
        # The sixth step is about to begin, and waits until the worker has noticed.
        await until(lambda: worker.serving.num_requests == 0)
        assert (worker.gate.num_steps, worker.device.num_running) == (5, 1)
        worker.gate.allow(1)
        await until(lambda: worker.device.num_running == 0)
        await worker.device.call(lambda: None)
        assert (worker.gate.num_steps, worker.gate.num_asked) == (6, 6)
        assert _cancelled(worker, "running") == 1


@ANSWERING
async def test_the_next_step_gives_the_free_row_to_who_waits(
    backbone: Backbone, *, stream: bool
) -> None:
    async with _served(backbone, max_rows=2) as (worker, port):
        worker.gate.is_shut = True
        leaving = await _ask(port, stream=stream)
        await worker.gate.take(3)
        others = [await _ask(port, stream=stream) for _ in range(2)]
        await _take_until_one_waits(worker, running=2)
        await _leave(leaving)
        await until(lambda: worker.serving.num_requests == 2)
        # One step was about to begin; the one after it has the row to give.
        await worker.gate.take(2)
        assert (worker.device.num_running, worker.gate.num_waiting) == (2, 0)
        for client in others:
            await _leave(client)
        await until(lambda: worker.serving.num_requests == 0)


@ANSWERING
async def test_who_leaves_the_queue_never_gets_a_row(backbone: Backbone, *, stream: bool) -> None:
    async with _served(backbone, max_rows=1) as (worker, port):
        worker.gate.is_shut = True
        running = await _ask(port, stream=stream)
        await worker.gate.take(3)
        waiting = await _ask(port, stream=stream)
        await _take_until_one_waits(worker, running=1)
        await _leave(waiting)
        await until(lambda: worker.serving.num_requests == 1)
        await worker.gate.take(1)
        assert (worker.device.num_running, worker.gate.num_waiting) == (1, 0)
        assert _cancelled(worker, "waiting") == 1
        await _leave(running)
        await until(lambda: worker.serving.num_requests == 0)


@pytest.mark.parametrize("path", ["/generate", "/embed"])
async def test_who_leaves_in_the_middle_of_the_question_is_no_fault(
    backbone: Backbone, path: str
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async with gated_worker(backbone, max_rows=1) as worker:
        app = create_app(worker.serving, health=worker.health, max_body_bytes=1000)
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        await app(scope, receive, send)
    assert sent[0]["status"] == CLIENT_GONE
