"""Files in the object store that nothing needs any more."""

from typing import Final

from sqlalchemy import select

from app.core.jobs import UNFINISHED_STATES
from app.library.database import Sessions
from app.library.datasets import file_of_deleted
from app.library.storage import ObjectStore, checkpoint_key
from app.library.tables import DatasetRow, JobRow
from app.library.workspaces import in_all_workspaces

CHECKPOINTS: Final = "checkpoints"


async def collect_garbage(
    sessions: Sessions, store: ObjectStore, *, dry_run: bool
) -> dict[str, int]:
    """Removes what a crash left behind between a row and its file; safe beside a running service.

    Gives how many files went, or would have gone: of `datasets` that were deleted, and
    `checkpoints` of jobs that have ended or are not known.
    """
    sessions = in_all_workspaces(sessions)
    return {
        "datasets": await _datasets(sessions, store, dry_run=dry_run),
        "checkpoints": await _checkpoints(sessions, store, dry_run=dry_run),
    }


async def _datasets(sessions: Sessions, store: ObjectStore, *, dry_run: bool) -> int:
    count = 0
    async with sessions.begin() as session:
        query = select(DatasetRow.id).where(DatasetRow.deleted.is_not(None))
        deleted = (await session.scalars(query)).all()
    for dataset_id in deleted:
        async with sessions.begin() as session:
            key = await file_of_deleted(session, dataset_id)
            if key is not None and await store.exists(key):
                count += 1
                if not dry_run:
                    await store.delete(key)
    return count


async def _checkpoints(sessions: Sessions, store: ObjectStore, *, dry_run: bool) -> int:
    # Listed before the jobs are read, so that a job that begins meanwhile is not overlooked.
    keys = await store.keys(CHECKPOINTS)
    async with sessions.begin() as session:
        unfinished = select(JobRow.id).where(JobRow.state.in_(UNFINISHED_STATES))
        needed = {checkpoint_key(job_id) for job_id in await session.scalars(unfinished)}
    superfluous = [key for key in keys if key not in needed]
    for key in superfluous if not dry_run else ():
        await store.delete(key)
    return len(superfluous)
