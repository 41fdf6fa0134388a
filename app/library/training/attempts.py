"""A worker's side of a training job: take it, tell how far it is, end it.

Whoever takes a job gets a fencing token. Everything said later carries the token, so a worker that
was thought dead and comes back is refused, and its result is rolled back with it: everything that
takes a token raises `ConflictError` when the job is no longer this worker's. All that take a job's
id raise `NotFoundError` when there is none.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import JSON, ConflictError
from app.core.jobs import UNFINISHED_STATES
from app.library.records import JobRecord
from app.library.tables import JobRow
from app.library.training.jobs import append_event, end_job, get_job, lock_job
from app.library.training.queue import enqueue, forget_taken, is_waiting, waits

MAX_MESSAGE_CHARACTERS: Final = 2000
LOST_MESSAGE: Final = "Every worker that took the job disappeared"


async def claim_job(session: AsyncSession, job_id: uuid.UUID) -> tuple[JobRecord, int]:
    """Takes a waiting job.

    Returns:
        The job, and the fencing token for everything that is said about it later.

    Raises:
        ConflictError: It does not wait: another worker has it, or it has ended. A second delivery
            of a job ends here, which is no fault.
    """
    row = await lock_job(session, job_id)
    if row.state != "queued":
        raise ConflictError(f"Job {job_id} is {row.state}", details={"state": row.state})
    row.state = "running"
    row.fencing_token += 1
    row.attempts += 1
    row.started = row.started or func.clock_timestamp()
    row.heartbeat = func.clock_timestamp()
    token = row.fencing_token
    await session.flush()
    data: dict[str, JSON] = {"state": "running", "attempt": row.attempts}
    await append_event(session, job_id, kind="state", data=data)
    return await get_job(session, job_id), token


async def heartbeat(
    session: AsyncSession,
    job_id: uuid.UUID,
    token: int,
    *,
    progress: Mapping[str, JSON] | None = None,
) -> bool:
    """Says that the worker is alive, and how far the job is where that is new.

    What was told before is replaced; numbers that are not finite become null.

    Returns:
        Whether the worker was asked to stop.
    """
    row = await _owned(session, job_id, token)
    row.heartbeat = func.clock_timestamp()
    if progress is not None:
        row.progress = dict(progress)
    await session.flush()
    if progress is not None:
        await append_event(session, job_id, kind="progress", data=progress)
    return row.cancel_requested


async def finish_job(
    session: AsyncSession,
    job_id: uuid.UUID,
    token: int,
    *,
    vector_id: uuid.UUID,
    report: Mapping[str, JSON] | None = None,
) -> None:
    """Ends a job with its result, in the transaction that stores the result.

    Saying it again with the same result is harmless. A wish to cancel that came too late is void.
    """
    row = await lock_job(session, job_id)
    if (row.state, row.fencing_token, row.vector_id) == ("succeeded", token, vector_id):
        return
    _require_owner(row, token)
    row.vector_id = vector_id
    row.report = None if report is None else dict(report)
    await end_job(session, row, state="succeeded", data={"vector_id": str(vector_id)})


async def fail_job(
    session: AsyncSession, job_id: uuid.UUID, token: int, *, code: str, message: str
) -> None:
    """Ends a job with the stable code and the sentence of an error."""
    row = await _owned(session, job_id, token)
    await _fail(session, row, code=code, message=message)


async def release_job(session: AsyncSession, job_id: uuid.UUID, token: int) -> bool:
    """Ends a job that was asked to stop, and tells whether it was; any other is given back.

    Another worker may take it at once and go on from its checkpoint; the attempt does not count.
    """
    row = await _owned(session, job_id, token)
    if row.cancel_requested:
        await end_job(session, row, state="cancelled", data={})
        return True
    row.attempts -= 1
    await _queue_again(session, row)
    return False


async def return_delivery(session: AsyncSession, job_id: uuid.UUID) -> None:
    """Puts a delivery back that somebody took who cannot begin; harmless when one waits."""
    row = await lock_job(session, job_id)
    if row.state == "queued" and not await is_waiting(session, job_id):
        await enqueue(session, job_id, backbone_fingerprint=row.backbone_fingerprint)


async def requeue_stalled(
    session: AsyncSession, *, older_than_seconds: float, max_attempts: int = 5
) -> list[uuid.UUID]:
    """Delivers unfinished jobs again of which nothing was heard for a while.

    A silent running job goes back into the queue under a new token; it ends instead when someone
    wanted that, or when too many workers vanished with it. A waiting job whose delivery was taken
    by a worker that died before it claimed the job is delivered once more.

    Jobs that another caller is looking at are skipped; after `max_attempts` a job fails.

    Returns:
        The jobs that wait again.
    """
    silent_since = func.clock_timestamp() - dt.timedelta(seconds=older_than_seconds)
    query = (
        select(JobRow)
        .where(JobRow.state.in_(UNFINISHED_STATES), JobRow.heartbeat < silent_since)
        .where(or_(JobRow.state == "running", ~waits(JobRow.id)))
        .order_by(JobRow.id)
        .with_for_update(skip_locked=True)
    )
    rows = (await session.scalars(query)).all()
    return [row.id for row in rows if await _revive(session, row, max_attempts=max_attempts)]


async def _revive(session: AsyncSession, row: JobRow, *, max_attempts: int) -> bool:
    await forget_taken(session, row.id)
    if row.cancel_requested:
        await end_job(session, row, state="cancelled", data={})
        return False
    if row.state == "running" and row.attempts >= max_attempts:
        await _fail(session, row, code="worker-unavailable", message=LOST_MESSAGE)
        return False
    await _queue_again(session, row)
    return True


async def _queue_again(session: AsyncSession, row: JobRow) -> None:
    was_running = row.state == "running"
    row.state = "queued"
    row.fencing_token += 1
    row.heartbeat = func.clock_timestamp()
    await session.flush()
    if was_running:
        await append_event(session, row.id, kind="state", data={"state": "queued"})
    if not await is_waiting(session, row.id):
        await enqueue(session, row.id, backbone_fingerprint=row.backbone_fingerprint)


async def _fail(session: AsyncSession, row: JobRow, *, code: str, message: str) -> None:
    row.error_code = code
    row.error_message = message.replace("\0", "")[:MAX_MESSAGE_CHARACTERS]
    data: dict[str, JSON] = {"error": {"code": code, "message": row.error_message}}
    await end_job(session, row, state="failed", data=data)


async def _owned(session: AsyncSession, job_id: uuid.UUID, token: int) -> JobRow:
    row = await lock_job(session, job_id)
    _require_owner(row, token)
    return row


def _require_owner(row: JobRow, token: int) -> None:
    if row.state != "running" or row.fencing_token != token:
        raise ConflictError(
            f"Job {row.id} is no longer this worker's: wanted running with token {token}, "
            f"found {row.state} with token {row.fencing_token}",
            details={"state": row.state},
        )
