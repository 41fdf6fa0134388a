"""Streams of events: answers delta by delta, and what happens to a job, across lost connections.

A stream of an answer that was refused or lost is tried again as any request is; one that has begun
is never repeated.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter, ValidationError

from vlibrary_client.answers import Answer, Delta
from vlibrary_client.calls import trainings
from vlibrary_client.errors import (
    ConnectionFailedError,
    InvalidResponseError,
    RequestTimeoutError,
    UnavailableError,
    VLibraryError,
)
from vlibrary_client.types import FINAL_STATES, JobEvent, JobState, Progress
from vlibrary_client.wire.replies import Call, error_from_problem, read_nothing, read_problem
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport

STREAM_SILENCE_SECONDS = 60.0
MAX_SILENT_RECONNECTS = 30
RECONNECT_DELAY_SECONDS = 1.0
# What lasted longer was ended by a proxy that lets none last, and a queued job has nothing to say.
BRIEF_SECONDS = 10.0
_UNKNOWN_STATUS: Final = 500
_TRANSIENT = (ConnectionFailedError, RequestTimeoutError, UnavailableError)

_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
_DELTA: TypeAdapter[Delta] = TypeAdapter(Delta)
_PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)
_STATE: TypeAdapter[JobState] = TypeAdapter(JobState)


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


def read_job_event(event: ServerSentEvent) -> JobEvent:
    """A job event, typed as far as its kind is known.

    Raises:
        InvalidResponseError: The event is not one of a job.
    """
    try:
        data: dict[str, Any] = dict(json.loads(event.data))
        return JobEvent(
            sequence=int(event.id),
            kind=event.event,
            data=data,
            progress=_PROGRESS.validate_python(data) if event.event == "progress" else None,
            state=_STATE.validate_python(data.get("state")) if event.event == "state" else None,
        )
    except (ValueError, TypeError, ValidationError) as error:
        raise InvalidResponseError("cannot read an event of the job") from error


@dataclass(slots=True)
class _Position:
    """Where in a job's events a listener stands, across connections."""

    job_id: UUID
    last_id: int
    is_final: bool = False
    silent_reconnects: int = 0
    opened_at: float = math.inf

    def call(self, *, silence_seconds: float = STREAM_SILENCE_SECONDS) -> Call[None]:
        self.opened_at = math.inf
        known = {"last-event-id": str(self.last_id)} if self.last_id else {}
        return Call(
            path=f"/train/{self.job_id}/events",
            read=read_nothing,
            headers={"accept": "text/event-stream", **known},
            timeout_seconds=silence_seconds,
        )

    def take(self, sent: ServerSentEvent) -> JobEvent | None:
        """The event, unless it says nothing or is known already."""
        # Comments end with an empty line, which is an event without data once there was an id.
        if not sent.data:
            return None
        event = read_job_event(sent)
        if event.sequence <= self.last_id:
            return None
        self.last_id = event.sequence
        self.silent_reconnects = 0
        self.is_final = event.state in FINAL_STATES
        return event

    def lose(self, error: VLibraryError | None) -> None:
        """Counts a connection that ended; raises when too many did at once or said nothing."""
        is_brief = time.monotonic() - self.opened_at < BRIEF_SECONDS
        is_silent = is_brief or isinstance(error, RequestTimeoutError)
        self.silent_reconnects = self.silent_reconnects + 1 if is_silent else 0
        if self.silent_reconnects > MAX_SILENT_RECONNECTS:
            raise error or ConnectionFailedError("the event stream ends again and again")

    def may_be_over(self, error: VLibraryError | None) -> bool:
        """Whether two connections in a row ended in good order without any news."""
        return error is None and self.silent_reconnects > 1


def job_events(
    transport: SyncTransport, job_id: UUID, *, after: int = 0, deadline: float = math.inf
) -> Generator[JobEvent, None, None]:
    """The job's events after number `after`, until it reaches a final state.

    A lost connection is opened again from the last event seen.

    The deadline, when to stop listening, is on the clock of `time.monotonic`.
    """
    position = _Position(job_id=job_id, last_id=after)
    while (left := deadline - time.monotonic()) > 0:
        error: VLibraryError | None = None
        call = position.call(silence_seconds=min(left, STREAM_SILENCE_SECONDS))
        try:
            with transport.events(call, deadline=deadline) as sent:
                position.opened_at = time.monotonic()
                for event in filter(None, map(position.take, sent)):
                    yield event
                    if position.is_final:
                        return
        except _TRANSIENT as caught:
            error = caught
        position.lose(error)
        if position.may_be_over(error) and transport.send(trainings.get_job(job_id)).is_final:
            return
        transport.sleep(min(RECONNECT_DELAY_SECONDS, max(0.0, deadline - time.monotonic())))


async def async_job_events(
    transport: AsyncTransport, job_id: UUID, *, after: int = 0
) -> AsyncGenerator[JobEvent, None]:
    """As `job_events`, for as long as it takes."""
    position = _Position(job_id=job_id, last_id=after)
    while True:
        error: VLibraryError | None = None
        try:
            async with transport.events(position.call()) as sent:
                position.opened_at = time.monotonic()
                async for one in sent:
                    event = position.take(one)
                    if event is not None:
                        yield event
                    if position.is_final:
                        return
        except _TRANSIENT as caught:
            error = caught
        position.lose(error)
        if position.may_be_over(error):
            job = await transport.send(trainings.get_job(job_id))
            if job.is_final:
                return
        await transport.sleep(RECONNECT_DELAY_SECONDS)
