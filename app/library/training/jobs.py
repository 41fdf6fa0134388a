"""Training jobs: the truth about what was asked for, how far it is and how it ended.

This is the side of those who ask for training and watch it; `attempts` is the worker's side.
"""

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Select,
    Uuid,
    column,
    delete,
    func,
    select,
    text,
    true,
    update,
    values,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.errors import JSON, ConflictError, NotFoundError
from app.core.identifiers import check_description, check_tags, check_vector_name, new_id
from app.core.jobs import FINAL_STATES, JOB_STATES, JobState
from app.library.access.audit import write_audit
from app.library.database import dump_json
from app.library.pages import Page, read_page
from app.library.records import JobEvent, JobEventKind, JobRecord, record_of
from app.library.tables import DatasetRow, JobEventRow, JobRow, VectorRow
from app.library.training.queue import dequeue, enqueue
from app.library.workspaces import workspace_of

MAX_NEW_EVENTS: Final = 1000
PROGRESS_KEPT: Final = dt.timedelta(days=30)

Jobs: TypeAlias = Select[JobRow, str, int, str]

# Every job with what it made; callers narrow it.
_JOBS: Final[Jobs] = select(JobRow, VectorRow.name, VectorRow.version, VectorRow.status).outerjoin(
    VectorRow, VectorRow.id == JobRow.vector_id
)


async def _read_jobs(session: AsyncSession, query: Jobs) -> list[JobRecord]:
    records = []
    for row, name, version, status in await session.execute(query):
        vector = {"id": row.vector_id, "name": name, "version": version, "status": status}
        records.append(record_of(JobRecord, row, vector=None if row.vector_id is None else vector))
    return records


async def enqueue_training(
    session: AsyncSession,
    *,
    name: str,
    dataset_id: uuid.UUID,
    config: Mapping[str, JSON],
    backbone_fingerprint: str | None = None,
    description: str = "",
    tags: Iterable[str] = (),
) -> JobRecord:
    """A queued job and its delivery, which commit together.

    `config` overrides the training configuration. The job waits for a worker of the backbone;
    without a fingerprint any takes it.

    Raises:
        InvalidInputError: A name, tag or text is malformed.
        NotFoundError: There is no such data set.
    """
    request: dict[str, Any] = {
        "name": check_vector_name(name),
        "dataset_id": dataset_id,
        "backbone_fingerprint": backbone_fingerprint,
        "config": json.loads(dump_json(config)),
        "description": check_description(description),
        "tags": check_tags(tags),
    }
    # The lock keeps it from being deleted before this job is seen.
    known = select(DatasetRow.id).where(DatasetRow.id == dataset_id, DatasetRow.deleted.is_(None))
    if await session.scalar(known.with_for_update(read=True, key_share=True)) is None:
        raise NotFoundError(f"There is no data set {dataset_id}")
    job_id = new_id()
    workspace = workspace_of(session)
    session.add(JobRow(id=job_id, workspace=workspace, state="queued", progress={}, **request))
    await session.flush()
    await append_event(session, job_id, kind="state", data={"state": "queued"})
    await enqueue(session, job_id, backbone_fingerprint=backbone_fingerprint)
    await write_audit(session, action="job.create", subject=str(job_id), details={"name": name})
    return await get_job(session, job_id)


async def get_job(session: AsyncSession, job_id: uuid.UUID) -> JobRecord:
    """One job.

    Raises:
        NotFoundError: There is none with this id.
    """
    found = await _read_jobs(session, _JOBS.where(JobRow.id == job_id))
    if not found:
        raise NotFoundError(f"There is no job {job_id}")
    return found[0]


async def list_jobs(
    session: AsyncSession,
    *,
    state: JobState | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[JobRecord]:
    """Jobs, newest first.

    Raises:
        InvalidInputError: The limit or cursor is malformed.
    """
    query = _JOBS
    if state is not None:
        query = query.where(JobRow.state == state)
    read = partial(_read_jobs, session)
    return await read_page(read, query, of=JobRow.id, limit=limit, cursor=cursor)


async def count_jobs(session: AsyncSession) -> Mapping[JobState, int]:
    """How many jobs are in each state; zero where there are none."""
    query = select(JobRow.state, func.count().label("number")).group_by(JobRow.state)
    counted = {row.state: row.number for row in await session.execute(query)}
    return {state: counted.get(state, 0) for state in JOB_STATES}


async def request_cancel(session: AsyncSession, job_id: uuid.UUID) -> JobRecord:
    """Asks a job to stop: at once when it waits, else as soon as its worker looks.

    Asking again is harmless.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It has succeeded or failed already.
    """
    row = await lock_job(session, job_id)
    if row.state in {"succeeded", "failed"}:
        raise ConflictError(f"Job {job_id} has already {row.state}", details={"state": row.state})
    if row.state == "queued":
        await dequeue(session, job_id)
        await end_job(session, row, state="cancelled", data={})
    elif row.state == "running" and not row.cancel_requested:
        row.cancel_requested = True
        await session.flush()
        await write_audit(session, action="job.cancel", subject=str(job_id))
    return await get_job(session, job_id)


async def lock_job(session: AsyncSession, job_id: uuid.UUID) -> JobRow:
    """The job's row, which stays locked until the commit.

    Raises:
        NotFoundError: There is no such job.
    """
    query = select(JobRow).where(JobRow.id == job_id).with_for_update()
    row = (await session.scalars(query)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no job {job_id}")
    return row


async def end_job(
    session: AsyncSession, row: JobRow, *, state: JobState, data: Mapping[str, JSON]
) -> None:
    """Moves a locked job into a final state and says so in its events."""
    row.state = state
    row.finished = func.clock_timestamp()
    await session.flush()
    await append_event(session, row.id, kind="state", data={"state": state, **data})
    await write_audit(
        session,
        action=f"job.{state}",
        subject=str(row.id),
        details=data,
        workspace=row.workspace,
    )


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


async def forget_progress(session: AsyncSession) -> None:
    """Drops what jobs told on their way that ended 30 days ago; how they ended stays."""
    # After a long time in which nobody did, there may be millions.
    await session.execute(text("SET LOCAL statement_timeout = 0"))
    ended = select(JobRow.id).where(JobRow.finished < func.clock_timestamp() - PROGRESS_KEPT)
    is_old = JobEventRow.job_id.in_(ended), JobEventRow.kind == "progress"
    gone = delete(JobEventRow).where(*is_old)
    # No session has them, which would otherwise be sent every number.
    await session.execute(gone, execution_options={"synchronize_session": False})


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
