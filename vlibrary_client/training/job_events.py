"""The events of a training job, across lost connections."""

import json
import math
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter, ValidationError

from vlibrary_client.calls import trainings
from vlibrary_client.errors import (
    ConnectionFailedError,
    InvalidResponseError,
    RequestTimeoutError,
    UnavailableError,
    VLibraryError,
)
from vlibrary_client.types import FINAL_STATES, JobEvent, JobState, Progress
from vlibrary_client.wire.replies import Call, read_nothing
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport

STREAM_SILENCE_SECONDS = 60.0
MAX_SILENT_RECONNECTS = 30
RECONNECT_DELAY_SECONDS = 1.0

_PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)
_STATE: TypeAdapter[JobState] = TypeAdapter(JobState)


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

    The deadline, when to stop listening, is on the clock of `time.monotonic`.
    """
    position = _Position(job_id=job_id, last_id=after)
    while (left := deadline - time.monotonic()) > 0:
        error: VLibraryError | None = None
        call = position.call(silence_seconds=min(left, STREAM_SILENCE_SECONDS))
        try:
            with transport.events(call, deadline=deadline) as sent:
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
