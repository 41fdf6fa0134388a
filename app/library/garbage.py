"""Files in the object store that nothing needs any more."""

import uuid
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.library.database import Sessions, run_transaction
from app.library.datasets import drop_file_of_deleted, list_deleted
from app.library.storage import ObjectStore, checkpoint_key
from app.library.tables import JobRow
from app.library.workspaces import in_all_workspaces

CHECKPOINTS: Final = "checkpoints"


@dataclass(frozen=True)
class Garbage:
    """How many files went, or would have gone.

    Attributes:
        datasets: Of data sets that were deleted.
        checkpoints: Of jobs that have ended or are not known.
    """

    datasets: int
    checkpoints: int


async def collect_garbage(sessions: Sessions, store: ObjectStore, *, dry_run: bool) -> Garbage:
    """Removes what a crash left behind between a row and its file; safe beside a running service.

    Args:
        sessions: Of the database.
        store: Where the files are.
        dry_run: Only count.
    """
    sessions = in_all_workspaces(sessions)
    return Garbage(
        datasets=await _datasets(sessions, store, dry_run=dry_run),
        checkpoints=await _checkpoints(sessions, store, dry_run=dry_run),
    )


async def _datasets(sessions: Sessions, store: ObjectStore, *, dry_run: bool) -> int:
    count = 0

    async def drop(key: str) -> None:
        nonlocal count
        if await store.exists(key):
            count += 1
            if not dry_run:
                await store.delete(key)

    for dataset_id in await run_transaction(sessions, list_deleted):

        async def work(session: AsyncSession, dataset_id: uuid.UUID = dataset_id) -> bool:
            return await drop_file_of_deleted(session, dataset_id, drop)

        await run_transaction(sessions, work)
    return count


async def _checkpoints(sessions: Sessions, store: ObjectStore, *, dry_run: bool) -> int:
    # Listed before the jobs are read, so that a job that begins meanwhile is not overlooked.
    keys = await store.keys(CHECKPOINTS)

    async def work(session: AsyncSession) -> set[str]:
        unfinished = select(JobRow.id).where(JobRow.state.in_(("queued", "running")))
        return {checkpoint_key(job_id) for job_id in await session.scalars(unfinished)}

    needed = await run_transaction(sessions, work)
    superfluous = [key for key in keys if key not in needed]
    if not dry_run:
        for key in superfluous:
            await store.delete(key)
    return len(superfluous)
