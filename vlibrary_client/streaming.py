"""Server-sent events: a decoder of the wire format, and job events that survive lost connections.

Source: the event stream format of the HTML standard, section 9.2.6. Lines end at LF, CR LF or CR
only; other line separators of Unicode are ordinary text.
"""

import json
import math
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from vlibrary_client import requests
from vlibrary_client.calls import Call
from vlibrary_client.errors import (
    ConnectionFailedError,
    InvalidResponseError,
    RequestTimeoutError,
    UnavailableError,
    VLibraryError,
)
from vlibrary_client.replies import read_nothing
from vlibrary_client.transport import STREAM_SILENCE_SECONDS, AsyncTransport, SyncTransport
from vlibrary_client.types import FINAL_STATES, JobEvent, JobState, Progress

MAX_EVENT_BYTES = 1 << 20
MAX_SILENT_RECONNECTS = 30
RECONNECT_DELAY_SECONDS = 1.0

_PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)
_STATE: TypeAdapter[JobState] = TypeAdapter(JobState)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """One dispatched event; `id` is the last id seen up to it."""

    data: str
    event: str = "message"
    id: str = ""


@dataclass(slots=True)
class EventDecoder:
    """Turns chunks of bytes, cut anywhere, into events."""

    max_bytes: int = MAX_EVENT_BYTES
    _buffer: bytearray = field(default_factory=bytearray)
    _data: list[str] = field(default_factory=list)
    _event: str = ""
    _id: str = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that the chunk completes.

        Raises:
            InvalidResponseError: An event is larger than `max_bytes`.
        """
        self._buffer += chunk
        events = [event for line in self._lines() if (event := self._take(line)) is not None]
        if len(self._buffer) + sum(map(len, self._data)) > self.max_bytes:
            raise InvalidResponseError(f"an event is larger than {self.max_bytes} bytes")
        return events

    def _lines(self) -> Iterator[str]:
        while (end := self._line_end()) is not None:
            text_end, next_start = end
            line = bytes(self._buffer[:text_end])
            del self._buffer[:next_start]
            yield line.decode("utf-8", errors="replace")

    def _line_end(self) -> tuple[int, int] | None:
        ends = [index for mark in b"\r\n" if (index := self._buffer.find(mark)) >= 0]
        if not ends:
            return None
        end = min(ends)
        if self._buffer[end] != ord("\r"):
            return end, end + 1
        if end + 1 == len(self._buffer):
            # The LF of a CR LF may be in the next chunk.
            return None
        return end, end + 2 if self._buffer[end + 1] == ord("\n") else end + 1

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        if not data:
            return None
        return ServerSentEvent(data="\n".join(data), event=event or "message", id=self._id)


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

    def call(self, *, silence_seconds: float = STREAM_SILENCE_SECONDS) -> Call[None]:
        headers = {"accept": "text/event-stream"}
        return Call(
            method="GET",
            path=f"/train/{self.job_id}/events",
            read=read_nothing,
            is_repeatable=True,
            headers=headers
            if self.last_id == 0
            else {**headers, "last-event-id": str(self.last_id)},
            timeout_seconds=silence_seconds,
        )

    def take(self, events: list[ServerSentEvent]) -> Iterator[JobEvent]:
        for event in map(read_job_event, events):
            if event.sequence <= self.last_id:
                continue
            self.last_id = event.sequence
            self.silent_reconnects = 0
            self.is_final = event.state in FINAL_STATES
            yield event

    def lose(self, error: VLibraryError | None) -> None:
        """Counts a connection that ended; raises when too many did without any event."""
        self.silent_reconnects += 1
        if self.silent_reconnects > MAX_SILENT_RECONNECTS:
            raise error or ConnectionFailedError("the event stream ends again and again")

    def may_be_over(self, error: VLibraryError | None) -> bool:
        """Whether two connections in a row ended in good order without any news."""
        return error is None and self.silent_reconnects > 1


_TRANSIENT = (ConnectionFailedError, RequestTimeoutError, UnavailableError)


def job_events(
    transport: SyncTransport, job_id: UUID, *, after: int = 0, deadline: float = math.inf
) -> Generator[JobEvent, None, None]:
    """The job's events after number `after`, until it reaches a final state.

    A lost connection is opened again from the last event seen.

    Args:
        transport: How to reach the server.
        job_id: Whose events.
        after: The last event that is already known.
        deadline: When to stop listening, on the clock of `time.monotonic`.

    Raises:
        VLibraryError: The server refuses, or stays unreachable.
    """
    position = _Position(job_id=job_id, last_id=after)
    while (left := deadline - time.monotonic()) > 0:
        error: VLibraryError | None = None
        decoder = EventDecoder()
        silence = min(left, STREAM_SILENCE_SECONDS)
        try:
            with transport.stream(position.call(silence_seconds=silence)) as chunks:
                for chunk in chunks:
                    yield from position.take(decoder.feed(chunk))
                    if position.is_final or time.monotonic() > deadline:
                        return
        except _TRANSIENT as caught:
            error = caught
        position.lose(error)
        if position.may_be_over(error) and transport.send(requests.get_job(job_id)).is_final:
            return
        transport.sleep(min(RECONNECT_DELAY_SECONDS, max(0.0, deadline - time.monotonic())))


async def async_job_events(
    transport: AsyncTransport, job_id: UUID, *, after: int = 0
) -> AsyncGenerator[JobEvent, None]:
    """The job's events after number `after`, until it reaches a final state.

    A lost connection is opened again from the last event seen.

    Raises:
        VLibraryError: The server refuses, or stays unreachable.
    """
    position = _Position(job_id=job_id, last_id=after)
    while True:
        error: VLibraryError | None = None
        decoder = EventDecoder()
        try:
            async with transport.stream(position.call()) as chunks:
                async for chunk in chunks:
                    for event in position.take(decoder.feed(chunk)):
                        yield event
                    if position.is_final:
                        return
        except _TRANSIENT as caught:
            error = caught
        position.lose(error)
        if position.may_be_over(error):
            job = await transport.send(requests.get_job(job_id))
            if job.is_final:
                return
        await transport.sleep(RECONNECT_DELAY_SECONDS)
