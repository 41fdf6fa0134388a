import asyncio
import time
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.types import Message

from app.api.http.admission import PLACE_BYTES_PER_SECOND, Admission, AdmittedRoute
from app.api.http.errors import error_handlers
from app.api.http.steady_bodies import (
    EARLY_BYTES,
    GRACE_SECONDS,
    LEAST_BYTES_PER_SECOND,
    SteadyBodies,
    wait_for_beginning,
)
from app.api.http.uploads import upload_place
from app.core.settings import Settings
from tests.fakes.clock import Clock

pytestmark = pytest.mark.anyio


def make_app(places: Admission | None = None) -> FastAPI:
    api = FastAPI(exception_handlers=error_handlers())

    @api.post("/early/{num_bytes}")
    async def early(request: Request, num_bytes: int) -> bytes:
        await wait_for_beginning(request, num_bytes=num_bytes)
        return await request.body()

    @api.post("/upload")
    async def upload(request: Request) -> int:
        assert places is not None
        async with upload_place(request, places):
            return len(await request.body())

    answers = APIRouter(route_class=AdmittedRoute)

    @answers.post("/answer")
    async def answer(request: Request) -> int:
        return len(await request.body())

    api.include_router(answers)
    api.state.services = SimpleNamespace(admission=places, settings=Settings(max_body_bytes=10**9))

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


async def status_of(path: str, pieces: Iterable[tuple[float, bytes]], **settings: Any) -> int:  # noqa: ANN401 - of `answer_to`
    status, _ = await answer_to(path, pieces, **settings)
    return status


async def answer_to(
    path: str,
    pieces: Iterable[tuple[float, bytes]],
    *,
    grace: float = 0.2,
    rate: float = 100.0,
    places: Admission | None = None,
    clock: Clock | None = None,
) -> tuple[int, bytes]:
    """Status and body of the answer when the pieces arrive after their pauses."""
    app = SteadyBodies(
        make_app(places), grace_seconds=grace, bytes_per_second=rate, clock=clock or time.monotonic
    )
    queue = iter(pieces)
    statuses: list[int] = []
    bodies: list[bytes] = []

    async def receive() -> Message:
        found = next(queue, None)
        if found is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        pause, body = found
        if clock is None:
            await asyncio.sleep(pause)
        else:
            clock.now += pause
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        bodies.append(message.get("body", b""))

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "state": {},
    }
    await app(scope, receive, send)
    return statuses[0], b"".join(bodies)


@pytest.mark.parametrize("path", ["/count", "/json"])
async def test_a_byte_now_and_then_keeps_no_place(path: str) -> None:
    assert await status_of(path, [(0.05, b" ")] * 100) == 408
    assert await status_of(path, [(3600.0, b" ")]) == 408


async def test_who_sends_enough_may_go_on_as_long_as_it_takes() -> None:
    assert await status_of("/count", [(0.05, b" " * 20)] * 20) == 200
    assert await status_of("/slow", [(0.0, b"x")] * 5) == 200


async def test_what_was_sent_early_buys_no_silence() -> None:
    assert await status_of("/count", [(0.0, b" " * 10_000), (5.0, b" ")]) == 408


async def test_who_has_not_sent_the_beginning_yet_has_no_place() -> None:
    places = Admission(max_requests=1, max_bytes=10**9)
    drops = [(0.05, b" ")] * 100
    slow = [
        asyncio.create_task(status_of("/upload", drops, grace=1.0, places=places)) for _ in range(8)
    ]
    await asyncio.sleep(0.2)
    assert places.in_flight == 0
    whole = [(0.0, b" " * EARLY_BYTES), (0.0, b" ")]
    assert await answer_to("/upload", whole, places=places) == (200, b"%d" % (EARLY_BYTES + 1))
    assert await status_of("/upload", [(0.0, b" ")], places=places) == 200
    with places.place():
        assert await status_of("/upload", whole, places=places) == 429
    assert await asyncio.gather(*slow) == [408] * 8


@pytest.mark.parametrize("num_bytes", [1, 10, 100])
async def test_what_was_waited_for_is_a_part_of_the_body(num_bytes: int) -> None:
    pieces = [(0.0, b"abcd"), (0.0, b"efghij"), (0.0, b"kl")]
    assert await answer_to(f"/early/{num_bytes}", pieces) == (200, b'"abcdefghijkl"')


def paced(num_seconds: int, *, bytes_per_second: int) -> Iterator[tuple[float, bytes]]:
    """A body whose pieces come once a second."""
    return ((1.0, bytes(bytes_per_second)) for _ in range(num_seconds))


@pytest.mark.parametrize("path", ["/upload", "/answer"])
@pytest.mark.parametrize(
    ("bytes_per_second", "num_seconds", "status"),
    [
        (LEAST_BYTES_PER_SECOND + 1, 3600, 408),
        (PLACE_BYTES_PER_SECOND - 1024, 3600, 408),
        (PLACE_BYTES_PER_SECOND, 3000, 200),
    ],
)
async def test_who_has_a_place_has_as_long_as_the_size_of_the_body_is_worth(
    path: str, bytes_per_second: int, *, num_seconds: int, status: int
) -> None:
    clock, places = Clock(), Admission(max_requests=1, max_bytes=10**9)
    found = await status_of(
        path,
        paced(num_seconds, bytes_per_second=bytes_per_second),
        grace=GRACE_SECONDS,
        rate=LEAST_BYTES_PER_SECOND,
        places=places,
        clock=clock,
    )
    assert found == status
    assert places.in_flight == 0
    # Uploads take no place before.
    beginning = EARLY_BYTES / bytes_per_second if path == "/upload" else 0.0
    sent = (clock.now - beginning) * bytes_per_second
    assert clock.now - beginning <= 1 + GRACE_SECONDS + sent / PLACE_BYTES_PER_SECOND
