"""Talk to one or several workers and pick the least loaded that serves the asked backbone."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, Self

import httpx

from app.core.errors import (
    BusyError,
    UnavailableError,
    VLibraryError,
    WorkerUnavailableError,
)
from app.core.telemetry.tracing import TraceIds
from app.rpc.decoding import (
    NotBegunError,
    error_of,
    lines_of,
    raise_if_refused,
    read_answer,
    read_line,
    unavailable,
)
from app.rpc.generation import GenerateDelta, GenerateResponse
from app.rpc.messages import (
    PACKED,
    EmbedRequest,
    EmbedResponse,
    ErrorBody,
    GenerateRequest,
    pack,
)
from app.rpc.pool import SILENCE_SECONDS, WorkerPool, WorkerState

# Well below the 5 s after which a worker closes an idle connection: what is sent on one that is
# just being closed is lost.
IDLE_SECONDS: Final = 2.0


class WorkerClient:
    """The workers behind a list of URLs.

    Safe to share between tasks of one event loop. Close it with `aclose` or `async with`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        secret: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=IDLE_SECONDS
        )
        self._headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
        self._transport = transport or httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
        self._http = httpx.AsyncClient(transport=self._transport, headers=self._headers)
        self.pool = WorkerPool(urls, http=self._http)
        self._trace_ids = TraceIds()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self.pool.aclose()
        await self._http.aclose()

    async def embed(
        self, request: EmbedRequest, *, backbone_fingerprint: str | None = None
    ) -> EmbedResponse:
        """Embed items on the least loaded worker.

        Raises:
            WorkerUnavailableError: no worker answers.
            IncompatibleBackboneError: workers answer, none has the asked backbone.
            VLibraryError: whatever the worker reported, by its code.
        """
        async with self._sent(
            "/embed", pack(request), backbone_fingerprint=backbone_fingerprint
        ) as response:
            await response.aread()
            return read_answer(response, EmbedResponse)

    async def generate(
        self, request: GenerateRequest, *, backbone_fingerprint: str | None = None
    ) -> AsyncGenerator[GenerateDelta | GenerateResponse, None]:
        """The answer in full, after its deltas as they come where the request streams.

        Closing the generator closes the connection, upon which the worker drops the row.

        Raises:
            WorkerUnavailableError: No worker answers, or the one that did went away.
            IncompatibleBackboneError: Workers answer, none has the asked backbone.
            VLibraryError: Whatever the worker reported, by its code.
        """
        async with self._sent(
            "/generate", pack(request), backbone_fingerprint=backbone_fingerprint
        ) as response:
            if not response.is_success:
                await response.aread()
                read_answer(response, GenerateResponse)
            answer: GenerateResponse | None = None
            async with aclosing(lines_of(response)) as lines:
                # To their end: a connection that was not read to its end cannot be used again.
                async for text in lines:
                    line = read_line(text)
                    if isinstance(line, ErrorBody):
                        raise error_of(line)
                    if isinstance(line, GenerateResponse):
                        answer = line
                    else:
                        yield line
        if answer is None:
            raise unavailable("the worker ended the answer before its end")
        yield answer

    @asynccontextmanager
    async def _sent(
        self, path: str, body: Sequence[bytes], *, backbone_fingerprint: str | None
    ) -> AsyncIterator[httpx.Response]:
        """The response, still unread, of the least loaded fitting worker that takes the request."""
        refused: dict[str, UnavailableError] = {}
        while True:
            worker = await self._choose_after(refused, backbone_fingerprint)
            try:
                async with self._opened(worker, path, body) as response:
                    yield response
                    return
            except NotBegunError as error:
                # Nothing was begun, so another worker may have the request.
                refused[worker.url] = error.reason
                if isinstance(error.reason, WorkerUnavailableError):
                    worker.health = None

    async def _choose_after(
        self, refused: Mapping[str, UnavailableError], fingerprint: str | None
    ) -> WorkerState:
        """The next worker to ask.

        With none left, those that fit tell why: a busy one first, which is sure to be back. The
        others, with another backbone, say nothing about the request.
        """
        try:
            return await self.pool.choose(fingerprint, without=refused)
        except VLibraryError:
            if not refused:
                raise
        busy = [error for error in refused.values() if isinstance(error, BusyError)]
        raise min(busy or refused.values(), key=lambda error: error.retry_after_seconds or 0.0)

    @asynccontextmanager
    async def _opened(
        self, worker: WorkerState, path: str, body: Sequence[bytes]
    ) -> AsyncIterator[httpx.Response]:
        """The worker's response, still unread."""
        worker.in_flight += 1
        headers = {
            **self._headers,
            "content-type": PACKED,
            "content-length": str(sum(map(len, body))),
        }
        self._trace_ids.inject(headers)
        # Whoever asks has a deadline, and tells the worker of it.
        limits = {"timeout": httpx.Timeout(None, connect=SILENCE_SECONDS).as_dict()}
        url = worker.url + path
        request = httpx.Request(
            "POST", url, content=_pieces(body), headers=headers, extensions=limits
        )
        try:
            try:
                # Nothing is used of a client's redirects, cookies and defaults, and they take time.
                opened = await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise NotBegunError(unavailable("the connection to the worker broke")) from error
            async with aclosing(opened) as response:
                await raise_if_refused(response)
                yield response
        except httpx.HTTPError as error:
            worker.health = None
            raise unavailable("the connection to the worker broke") from error
        finally:
            worker.in_flight -= 1


async def _pieces(body: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece
