"""Streamed answers: deltas one by one, and the answer in full with its proof at the end.

A stream that was refused or lost is tried again as any request is; one that has begun is never
repeated.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final, Self

from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter, ValidationError

from vlibrary_client.answers import Answer, Delta
from vlibrary_client.errors import ConnectionFailedError, InvalidResponseError, VLibraryError
from vlibrary_client.wire.replies import Call, error_from_problem, read_problem
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport

_UNKNOWN_STATUS: Final = 500

_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
_DELTA: TypeAdapter[Delta] = TypeAdapter(Delta)


def _error_in(data: str) -> VLibraryError:
    """The error that the answer would have been, had the stream not begun."""
    problem = read_problem(data)
    status, details = problem.get("status"), problem.get("details")
    return error_from_problem(
        problem,
        status=status if isinstance(status, int) else _UNKNOWN_STATUS,
        retry_after=details.get("retry_after_seconds") if isinstance(details, dict) else None,
    )


class _Reader:
    """What was read of a stream."""

    def __init__(self) -> None:
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The answer in full.

        Raises:
            VLibraryError: The stream has not been read to its end.
        """
        if self._answer is None:
            raise VLibraryError("the answer is not complete: read the stream to its end first")
        return self._answer

    def _take(self, event: ServerSentEvent) -> Delta | None:
        """The delta of an event; the answer is kept, and kinds that are not known say nothing.

        Raises:
            InvalidResponseError: The event cannot be read.
            VLibraryError: The event tells of an error, by its code.
        """
        if event.event == "error":
            raise _error_in(event.data)
        try:
            if event.event == "delta":
                return _DELTA.validate_json(event.data)
            if event.event == "answer":
                self._answer = _ANSWER.validate_json(event.data)
        except ValidationError as error:
            raise InvalidResponseError("cannot read an event of the answer") from error
        return None


class AnswerStream(_Reader):
    """The deltas of an answer, in a `with` block that ends the answer early when it is left.

    Leaving the block, or `close`, ends the connection, upon which the server stops generating.
    """

    def __init__(self, transport: SyncTransport, call: Call[Any]) -> None:
        super().__init__()
        self._deltas = self._read(transport, call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        return next(self._deltas)

    def close(self) -> None:
        """Closes the connection."""
        self._deltas.close()

    def _read(self, transport: SyncTransport, call: Call[Any]) -> Generator[Delta, None, None]:
        with ExitStack() as stack:
            events = transport.retried(call, lambda: stack.enter_context(transport.events(call)))
            for delta in map(self._take, events):
                if delta is not None:
                    yield delta
                if self._answer is not None:
                    return
        raise ConnectionFailedError("the answer broke off before its end")


class AsyncAnswerStream(_Reader):
    """As `AnswerStream`, in an `async with` block."""

    def __init__(self, transport: AsyncTransport, make_call: Callable[[], Call[Any]]) -> None:
        super().__init__()
        self._deltas = self._read(transport, make_call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        return await anext(self._deltas)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._deltas.aclose()

    async def _read(
        self, transport: AsyncTransport, make_call: Callable[[], Call[Any]]
    ) -> AsyncGenerator[Delta, None]:
        # Images may be files.
        call = await asyncio.to_thread(make_call)
        async with AsyncExitStack() as stack:
            events = await transport.retried(
                call, lambda: stack.enter_async_context(transport.events(call))
            )
            async for event in events:
                delta = self._take(event)
                if delta is not None:
                    yield delta
                if self._answer is not None:
                    return
        raise ConnectionFailedError("the answer broke off before its end")
