"""Delivery of training jobs through procrastinate, which lives in the same Postgres.

A row of its queue says only that someone should look at a job; whether there is anything to do is
the job's own business.
"""

import uuid
from typing import Final, cast

import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from psycopg import AsyncConnection
from sqlalchemy import ColumnElement, Exists, column, exists, func, literal, select, table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.library.database import conninfo

TRAINING_QUEUE: Final = "training"
MAX_CONNECTIONS: Final = 4
TRAINING_TASK: Final = "vlibrary.train"
_LOCK: Final = "train:"


def make_queue(url: str) -> procrastinate.App:
    """The queue as a worker sees it, not yet open.

    The worker registers its function as a task named `TRAINING_TASK` that takes `job_id: str`, and
    runs it on `TRAINING_QUEUE` and on the `queue_of` its backbone.

    Two of its own connections are in use while a job runs.
    """
    connector = procrastinate.PsycopgConnector(
        conninfo=conninfo(url), min_size=1, max_size=MAX_CONNECTIONS
    )
    return procrastinate.App(connector=connector)


async def _driver_connection(session: AsyncSession) -> AsyncConnection:
    connection = await session.connection()
    return cast("AsyncConnection", (await connection.get_raw_connection()).driver_connection)


def _lock(job_id: uuid.UUID) -> str:
    return f"{_LOCK}{job_id}"


def queue_of(backbone_fingerprint: str | None) -> str:
    """Where jobs for a backbone wait; those for any wait on `TRAINING_QUEUE` itself."""
    if backbone_fingerprint is None:
        return TRAINING_QUEUE
    # The name of a channel of Postgres, which has the queue's, is at most 63 characters long.
    return f"{TRAINING_QUEUE}:{backbone_fingerprint[:16]}"


async def enqueue(
    session: AsyncSession, job_id: uuid.UUID, *, backbone_fingerprint: str | None
) -> None:
    """Puts one delivery of a job into the queue, as part of the session's transaction.

    Workers of the backbone take it, or any worker where none is named. The queueing lock allows at
    most one waiting delivery of a job; see `is_waiting`.

    Raises:
        AlreadyEnqueued: One is waiting.
        DBAPIError: The database refused, or went away.
    """
    job = Job(
        queue=queue_of(backbone_fingerprint),
        task_name=TRAINING_TASK,
        lock=None,
        queueing_lock=_lock(job_id),
        task_kwargs={"job_id": str(job_id)},
    )
    manager = JobManager(procrastinate.PsycopgConnector())
    connection = await _driver_connection(session)
    try:
        await manager.defer_job_async(job, connection=connection)
    except ConnectorException as error:
        # As the session would have told of it, so that whoever knows its errors knows this one.
        cause = error.__cause__ or error
        raise DBAPIError.instance(None, None, cause, psycopg.Error) from error


def waits(job_id: ColumnElement[uuid.UUID] | InstrumentedAttribute[uuid.UUID]) -> Exists:
    """Whether a delivery of a job waits to be taken, for statements about many."""
    is_of_job = column("queueing_lock") == func.concat(_LOCK, job_id)
    delivery = exists().select_from(table("procrastinate_jobs"))
    return delivery.where(is_of_job, text("status = 'todo'"))


async def is_waiting(session: AsyncSession, job_id: uuid.UUID) -> bool:
    """Whether a delivery of the job waits to be taken."""
    return bool(await session.scalar(select(waits(literal(job_id)))))


async def forget_taken(session: AsyncSession, job_id: uuid.UUID) -> None:
    """Drops a delivery of the job whose worker is gone, with which it would stay for ever."""
    query = "DELETE FROM procrastinate_jobs WHERE queueing_lock = :lock AND status = 'doing'"
    await session.execute(text(query), {"lock": _lock(job_id)})


async def dequeue(session: AsyncSession, job_id: uuid.UUID) -> None:
    """Takes a waiting delivery of the job back; harmless when there is none."""
    query = (
        "SELECT procrastinate_cancel_job_v1(id, false, true) FROM procrastinate_jobs "
        "WHERE queueing_lock = :lock AND status = 'todo'"
    )
    await session.execute(text(query), {"lock": _lock(job_id)})
