"""The events of a training job as server-sent events, from any point on, until the job ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID

from fastapi.sse import ServerSentEvent
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.logs import get_logger
from app.library.database import Sessions, run_transaction
from app.library.jobs import get_job, job_events
from app.library.records import FINAL_STATES, JobEvent

POLL_SECONDS: Final = 0.5
RECONNECT_MILLISECONDS: Final = 2000

log = get_logger(__name__)


async def stream_job_events(
    sessions: Sessions, job_id: UUID, *, after: int = 0, poll_seconds: float = POLL_SECONDS
) -> AsyncIterator[ServerSentEvent]:
    """The job's events after number `after`; their ids are what a reconnect sends back.

    The database is polled in transactions of their own, so a stream holds no connection between
    two looks. A database that goes away ends the stream, which the client then opens again.

    Args:
        sessions: Transactions on the database.
        job_id: An existing job.
        after: The last event that the client has.
        poll_seconds: Between two looks.

    Raises:
        NotFoundError: There is no such job.
    """
    yield ServerSentEvent(comment="events", retry=RECONNECT_MILLISECONDS)
    position = after
    while True:
        try:
            events, is_over = await _look(sessions, job_id, after=position)
        except DBAPIError:
            log.warning("event stream lost the database", job_id=str(job_id))
            return
        for event in events:
            position = event.sequence
            yield ServerSentEvent(id=str(event.sequence), event=event.kind, data=event.data)
        if is_over or ends_job(events):
            return
        await asyncio.sleep(poll_seconds)


async def _look(sessions: Sessions, job_id: UUID, *, after: int) -> tuple[Sequence[JobEvent], bool]:
    """New events, and whether none can follow them."""

    async def work(session: AsyncSession) -> tuple[Sequence[JobEvent], bool]:
        # First the state: events that came before it was final are then surely read.
        job = await get_job(session, job_id)
        events = await job_events(session, job_id, after=after)
        last = events[-1].sequence if events else after
        return events, job.is_final and last >= job.last_sequence

    return await run_transaction(sessions, work)


def ends_job(events: Sequence[JobEvent]) -> bool:
    """Whether the last of the events is the job's last."""
    return bool(events) and events[-1].data.get("state") in FINAL_STATES
