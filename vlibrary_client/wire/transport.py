"""Sends `Call`s over HTTP, retries what is harmless to repeat, and raises the library's errors."""

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent

from vlibrary_client.errors import ConfigurationError, VLibraryError
from vlibrary_client.wire.connection import library_errors, retry_delay, timeout_of
from vlibrary_client.wire.replies import Call, Kept, json_of, query_of, require_answer

T = TypeVar("T")

CHUNK_BYTES = 1 << 20


def _options(call: Call[Any], timeout_seconds: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": query_of(call.query),
        "headers": dict(call.headers),
    }
    if call.kept is not None:
        options["headers"].update(call.kept.headers())
    if isinstance(call.content, bytes):
        options["content"] = call.content
    if isinstance(call.content, Path):
        options["headers"]["content-length"] = str(call.content.stat().st_size)
    if call.body is not None:
        options["content"] = json_of(call.body)
        options["headers"]["content-type"] = "application/json"
    seconds = timeout_seconds if call.timeout_seconds is None else call.timeout_seconds
    if seconds is not None:
        options["timeout"] = timeout_of(seconds)
    return options


def _result(call: Call[T], reply: httpx.Response) -> T:
    require_answer(reply, call)
    return call.read(reply)


def _chunks(path: Path, on_sent: Callable[[int], None] | None) -> Iterator[bytes]:
    report = on_sent or (lambda _: None)
    with path.open("rb") as file:
        report(0)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            report(file.tell())


async def _chunks_in_thread(
    path: Path, on_sent: Callable[[int], None] | None
) -> AsyncIterator[bytes]:
    chunks = _chunks(path, on_sent)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


class _AnyTransport:
    def __init__(self, max_retries: int) -> None:
        self.max_retries = max_retries
        self._timeout_seconds: float | None = None

    def changed(self, *, timeout_seconds: float | None, max_retries: int | None) -> Self:
        """Another transport on the same connections; None changes nothing."""
        other = copy.copy(self)
        if timeout_seconds is not None:
            other._timeout_seconds = timeout_seconds  # noqa: SLF001 - a copy of this
        if max_retries is not None:
            other.max_retries = max_retries
        return other


class _Bounded(httpx.SyncByteStream):
    """The bytes of a response until a deadline, however often a server says that it is there."""

    def __init__(self, response: httpx.Response, *, deadline: float) -> None:
        self._response = response
        self._stream = response.stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:  # type: ignore[union-attr]  # of a sync client
            yield chunk
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the time is over", request=self._response.request)

    def close(self) -> None:
        self._stream.close()  # type: ignore[union-attr]  # of a sync client


class SyncTransport(_AnyTransport):
    """Sends calls on one pool of connections and waits for the answers; safe to share."""

    def __init__(self, http: httpx.Client, *, max_retries: int) -> None:
        super().__init__(max_retries)
        self._http = http

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def sleep(self, seconds: float) -> None:
        """Waits; the one place where this transport does."""
        time.sleep(seconds)

    def send(self, call: Call[T]) -> T:
        """The answer of the call.

        Raises:
            VLibraryError: The server refused, or could not be reached.
        """
        return self.retried(call, lambda: _result(call, self._send_once(call)))

    def retried(self, call: Call[Any], attempt: Callable[[], T]) -> T:
        """What an attempt at the call returns, made again while that may help and is harmless."""
        number = 0
        while True:
            try:
                return attempt()
            except VLibraryError as error:
                delay = retry_delay(error, call, number, max_retries=self.max_retries)
                if delay is None:
                    raise
            number += 1
            self.sleep(delay)

    def _send_once(self, call: Call[Any]) -> httpx.Response:
        options = _options(call, self._timeout_seconds)
        with library_errors():
            if call.kept is not None:
                return self._go_on(options, call.kept)
            if isinstance(call.content, Path):
                options["content"] = _chunks(call.content, call.on_sent)
            return self._http.request(**options)

    def _go_on(self, options: dict[str, Any], kept: Kept) -> httpx.Response:
        with self._http.stream(**options) as response:
            if kept.begin(response.status_code, response.headers):
                for chunk in response.iter_bytes():
                    kept.body += chunk
                return kept.reply(response.headers)
            response.read()
            return response

    @contextmanager
    def events(
        self, call: Call[Any], *, deadline: float = math.inf
    ) -> Iterator[Iterator[ServerSentEvent]]:
        """The answer's events as they arrive; lost after the call's timeout without a byte.

        The deadline, when to stop listening, is on the clock of `time.monotonic`.

        Raises:
            VLibraryError: The server refused, could not be reached, or hung up.
        """
        options = _options(call, self._timeout_seconds)
        with library_errors(), self._http.stream(**options) as response:
            if not response.is_success:
                response.read()
                require_answer(response, call)
            response.stream = _Bounded(response, deadline=deadline)
            yield EventSource(response).iter_sse()


class AsyncTransport(_AnyTransport):
    """Sends calls on one pool of connections of one event loop; safe to share between tasks."""

    def __init__(self, http: httpx.AsyncClient, *, max_retries: int) -> None:
        super().__init__(max_retries)
        self._http = http
        self._loop: asyncio.AbstractEventLoop | None = None

    def _require_own_loop(self) -> None:
        """Returns where connections of the first request can be used again."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise ConfigurationError(
                "wanted the event loop of the client's first request, found another: make an "
                "AsyncClient in each, or use Client"
            )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def sleep(self, seconds: float) -> None:
        """Waits; the one place where this transport does."""
        await asyncio.sleep(seconds)

    async def send(self, call: Call[T]) -> T:
        """As `SyncTransport.send`."""
        self._require_own_loop()

        async def attempt() -> T:
            reply = await self._send_once(call)
            # Large answers take a while to read.
            return await asyncio.to_thread(_result, call, reply)

        return await self.retried(call, attempt)

    async def retried(self, call: Call[Any], attempt: Callable[[], Awaitable[T]]) -> T:
        """As `SyncTransport.retried`."""
        number = 0
        while True:
            try:
                return await attempt()
            except VLibraryError as error:
                delay = retry_delay(error, call, number, max_retries=self.max_retries)
                if delay is None:
                    raise
            number += 1
            await self.sleep(delay)

    async def _send_once(self, call: Call[Any]) -> httpx.Response:
        options = _options(call, self._timeout_seconds)
        if isinstance(call.content, Path):
            options["content"] = _chunks_in_thread(call.content, call.on_sent)
        with library_errors():
            if call.kept is not None:
                return await self._go_on(options, call.kept)
            return await self._http.request(**options)

    async def _go_on(self, options: dict[str, Any], kept: Kept) -> httpx.Response:
        async with self._http.stream(**options) as response:
            if kept.begin(response.status_code, response.headers):
                async for chunk in response.aiter_bytes():
                    kept.body += chunk
                return kept.reply(response.headers)
            await response.aread()
            return response

    @asynccontextmanager
    async def events(self, call: Call[Any]) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
        """As `SyncTransport.events`, without a deadline."""
        self._require_own_loop()
        options = _options(call, self._timeout_seconds)
        with library_errors():
            async with self._http.stream(**options) as response:
                if not response.is_success:
                    await response.aread()
                    require_answer(response, call)
                async with aclosing(EventSource(response).aiter_sse()) as events:
                    yield events
