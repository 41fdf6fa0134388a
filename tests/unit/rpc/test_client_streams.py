"""How the client takes a streamed answer apart."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import httpx
import pytest
from fastapi import Request, Response

from app.core.errors import WorkerUnavailableError
from app.rpc.client import WorkerClient
from app.rpc.decoding import lines_of
from app.rpc.generation import (
    GenerateDelta,
    GenerateResponse,
    Receipt,
    Timings,
    TokenLogprob,
    TokenLogprobs,
    Usage,
)
from app.rpc.messages import GenerateRequest
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(request_id="r", prompt="what?")
# Unicode calls each of them the end of a line; JSON allows them inside of strings.
LINE_ENDS = "a\u2028b\u2029c\u0085d"


class _Streaming(httpx.AsyncBaseTransport):
    """A healthy worker that streams the same bytes to everyone."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = tuple(chunks)
        self._healthy = httpx.ASGITransport(app=FakeWorker().app())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return await self._healthy.handle_async_request(request)
        return httpx.Response(200, content=_one_by_one(self._chunks))


async def _one_by_one(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _streamed(chunks: Iterable[bytes]) -> list[GenerateDelta | GenerateResponse]:
    async with WorkerClient(["http://one"], transport=_Streaming(chunks)) as client:
        return [part async for part in client.generate(REQUEST)]


def _logprobs() -> tuple[TokenLogprobs, ...]:
    one = TokenLogprob(token_id=1, text=LINE_ENDS, logprob=-1.0)
    return (TokenLogprobs(token_id=1, text=LINE_ENDS, logprob=-1.0, top=(one,)),)


def _parts() -> list[GenerateDelta | GenerateResponse]:
    return [
        GenerateDelta(text=LINE_ENDS, token_ids=(1,), logprobs=_logprobs()),
        GenerateResponse(
            text=LINE_ENDS,
            token_ids=(1,),
            finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=1),
            receipt=Receipt(vectors=(), sites_hit=0, sites_expected=0, num_forwards=1),
            logprobs=_logprobs(),
            timings=Timings(queue_ms=0, prefill_ms=0, decode_ms=0, total_ms=0),
            max_tokens=1,
        ),
    ]


def _text() -> bytes:
    return b"".join(line.model_dump_json().encode() + b"\n" for line in _parts())


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_texts_may_hold_what_unicode_counts_as_line_ends(size: int) -> None:
    text = _text()
    assert LINE_ENDS.encode() in text
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    assert await _streamed(chunks) == _parts()


@pytest.mark.parametrize("text", [_text()[:-20], b"", b"\n", b"\xff\n", b"{}\n"])
async def test_a_broken_stream_is_a_worker_that_went_away(text: bytes) -> None:
    with pytest.raises(WorkerUnavailableError):
        await _streamed([text])


async def test_lines_are_split_wherever_the_chunks_end() -> None:
    response = httpx.Response(200, content=_one_by_one([b"ab", b"c\n\nd", b"\n", b"\re"]))
    assert [line async for line in lines_of(response)] == [b"abc", b"", b"d", b"\re"]


@pytest.mark.parametrize("chunks", [[b"12345"], [b"123", b"45"], [b"12345\n"]])
async def test_a_line_without_end_is_given_up(chunks: list[bytes]) -> None:
    async def lines(max_bytes: int) -> list[bytes]:
        response = httpx.Response(200, content=_one_by_one(chunks))
        return [line async for line in lines_of(response, max_bytes=max_bytes)]

    assert await lines(5) == [b"12345"]
    with pytest.raises(WorkerUnavailableError, match="more than 4 bytes"):
        await lines(4)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_one_connection_serves_one_request_after_the_other(*, stream: bool) -> None:
    app = FakeWorker().app()
    ports: set[int] = set()

    @app.middleware("http")
    async def note(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        assert request.client is not None
        ports.add(request.client.port)
        return await go_on(request)

    with serving(app) as url:
        async with WorkerClient([url]) as client:
            asked = REQUEST.model_copy(update={"stream": stream})
            for _ in range(4):
                assert [part async for part in client.generate(asked)]
    assert len(ports) == 1
