import asyncio
from collections.abc import Iterable

import pytest
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.errors import error_handlers
from app.api.http.steady_bodies import SteadyBodies

pytestmark = pytest.mark.anyio


def make_app() -> FastAPI:
    api = FastAPI(exception_handlers=error_handlers())

    @api.post("/count")
    async def count(request: Request) -> int:
        return len(await request.body())

    @api.post("/json")
    async def read(body: dict[str, int]) -> int:
        return len(body)

    @api.post("/slow")
    async def slow(request: Request) -> int:
        total = 0
        async for piece in request.stream():
            # Work of ours is no fault of the sender's.
            await asyncio.sleep(0.1)
            total += len(piece)
        return total

    return api


async def status_of(
    path: str,
    pieces: Iterable[tuple[float, bytes]],
    *,
    grace: float = 0.2,
    rate: float = 100.0,
    early: int = 0,
    behind: ASGIApp | None = None,
) -> int:
    """The answer's status when the pieces arrive after their pauses."""
    app = SteadyBodies(
        behind or make_app(), grace_seconds=grace, bytes_per_second=rate, early_bytes=early
    )
    queue = iter(pieces)
    statuses: list[int] = []

    async def receive() -> Message:
        found = next(queue, None)
        if found is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        pause, body = found
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
        "state": {},
    }
    await app(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize("path", ["/count", "/json"])
async def test_a_byte_now_and_then_keeps_no_place(path: str) -> None:
    assert await status_of(path, [(0.05, b" ")] * 100) == 408
    assert await status_of(path, [(3600.0, b" ")]) == 408


async def test_who_sends_enough_may_go_on_as_long_as_it_takes() -> None:
    assert await status_of("/count", [(0.05, b" " * 20)] * 20) == 200
    assert await status_of("/slow", [(0.0, b"x")] * 5) == 200


async def test_what_was_sent_early_buys_no_silence() -> None:
    assert await status_of("/count", [(0.0, b" " * 10_000), (5.0, b" ")]) == 408


class Watched:
    """An app, and how many requests have got to it."""

    def __init__(self) -> None:
        self.app = make_app()
        self.entered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered += 1
        await self.app(scope, receive, send)


async def test_who_has_not_sent_anything_yet_gets_to_no_place() -> None:
    behind = Watched()
    slow = [
        asyncio.create_task(
            status_of("/count", [(0.05, b" ")] * 100, grace=1.0, early=50, behind=behind)
        )
        for _ in range(8)
    ]
    await asyncio.sleep(0.2)
    assert behind.entered == 0
    assert await status_of("/count", [(0.0, b" " * 60)], early=50, behind=behind) == 200
    assert behind.entered == 1
    assert await asyncio.gather(*slow) == [408] * 8


@pytest.mark.parametrize("early", [1, 10, 100])
async def test_what_was_received_early_is_a_part_of_the_body(early: int) -> None:
    assert await status_of("/json", [(0.0, b'{"a"'), (0.0, b": 1}")], early=early) == 200
