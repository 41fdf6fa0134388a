"""What happened to training jobs, event by event; knows no other side of a job."""

import uuid
from collections.abc import Mapping
from typing import Final

from sqlalchemy import BigInteger, Uuid, column, select, true, update, values
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.errors import JSON
from app.core.jobs import FINAL_STATES
from app.library.records import JobEvent, JobEventKind, record_of
from app.library.tables import JobEventRow, JobRow

MAX_NEW_EVENTS: Final = 1000


async def append_event(
    session: AsyncSession, job_id: uuid.UUID, *, kind: JobEventKind, data: Mapping[str, JSON]
) -> None:
    """Adds the job's next event; the job's row stays locked until the commit."""
    number = (
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(last_sequence=JobRow.last_sequence + 1)
        .returning(JobRow.last_sequence)
    )
    sequence = (await session.scalars(number)).one()
    session.add(JobEventRow(job_id=job_id, sequence=sequence, kind=kind, data=dict(data)))
    await session.flush()


async def new_events(
    session: AsyncSession, positions: Mapping[uuid.UUID, int]
) -> dict[uuid.UUID, tuple[list[JobEvent], bool]]:
    """What happened to several jobs, each after the event of this number, and what is over by that.

    Nothing can follow the events of what is over, as a job is that does not exist.
    """
    # First the states: events that came before a state was final are then surely read.
    query = select(JobRow.id, JobRow.state, JobRow.last_sequence).where(JobRow.id.in_(positions))
    jobs = {row.id: row for row in await session.execute(query)}
    known = values(column("job_id", Uuid), column("after", BigInteger), name="known").data(
        list(positions.items())
    )
    newer = (
        select(JobEventRow)
        .where(JobEventRow.job_id == known.c.job_id, JobEventRow.sequence > known.c.after)
        .order_by(JobEventRow.sequence)
        .limit(MAX_NEW_EVENTS)
        .lateral()
    )
    event = aliased(JobEventRow, newer)
    found: dict[uuid.UUID, list[JobEvent]] = {job_id: [] for job_id in positions}
    rows = select(event).select_from(known.join(newer, true())).order_by(event.sequence)
    for row in await session.scalars(rows):
        found[row.job_id].append(record_of(JobEvent, row))
    news = {}
    for job_id, events in found.items():
        job, last = jobs.get(job_id), events[-1].sequence if events else positions[job_id]
        is_over = job is None or (job.state in FINAL_STATES and last >= job.last_sequence)
        news[job_id] = events, is_over
    return news
