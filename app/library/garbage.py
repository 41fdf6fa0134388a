"""Files in the object store that nothing needs any more."""

import datetime as dt
from typing import Final

from sqlalchemy import select

from app.core.jobs import UNFINISHED_STATES
from app.library.database import Sessions
from app.library.datasets import hold_file
from app.library.storage import CHECKPOINTS, DATASETS, ObjectStore, checkpoint_key
from app.library.tables import DatasetRow, JobRow
from app.library.workspaces import in_all_workspaces

# No upload takes as long from its file to its row.
ABANDONED: Final = dt.timedelta(days=1)


async def collect_garbage(
    sessions: Sessions, store: ObjectStore, *, dry_run: bool
) -> dict[str, int]:
    """Removes what a crash left behind between a row and its file; safe beside a running service.

    Gives how many files went, or would have gone: of `datasets` that were deleted or never came to
    be, and `checkpoints` of jobs that have ended or are not known.
    """
    sessions = in_all_workspaces(sessions)
    return {
        "datasets": await _datasets(sessions, store, dry_run=dry_run),
        "checkpoints": await _checkpoints(sessions, store, dry_run=dry_run),
    }


async def drop_unneeded(
    sessions: Sessions, store: ObjectStore, key: str, *, dry_run: bool = False
) -> bool:
    """Deletes the file of a data set unless one that is not deleted names it; whether it went.

    Whoever stores the same content meanwhile waits, and puts the file once more.
    """
    async with sessions.begin() as session:
        await hold_file(session, key)
        needing = select(DatasetRow.id).where(
            DatasetRow.storage_key == key, DatasetRow.deleted.is_(None)
        )
        if await session.scalar(needing.limit(1)) is not None:
            return False
        if not dry_run:
            await store.delete(key)
        return True


async def _datasets(sessions: Sessions, store: ObjectStore, *, dry_run: bool) -> int:
    present = await store.keys(DATASETS)
    async with sessions.begin() as session:
        rows = await session.execute(select(DatasetRow.storage_key, DatasetRow.deleted))
        is_deleted = {row.storage_key: row.deleted is not None for row in rows}
    abandoned = dt.datetime.now(dt.UTC) - ABANDONED
    superfluous = [
        key for key, written in present.items() if is_deleted.get(key, written < abandoned)
    ]
    return sum([await drop_unneeded(sessions, store, key, dry_run=dry_run) for key in superfluous])


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
