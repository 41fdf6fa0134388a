"""What a key may fill: limits on the jobs, bytes and vectors of its workspace.

They hold for what is asked for with the key and count what everybody has put into the workspace, so
several keys do not add up.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final, TypeAlias

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.access import Quotas
from app.core.errors import BusyError, QuotaExceededError
from app.core.jobs import UNFINISHED_STATES
from app.library.database import lock_number
from app.library.tables import DatasetRow, JobRow, VectorRow
from app.library.workspaces import workspace_of

Use: TypeAlias = Mapping[str, int]

JOB_RETRY_SECONDS: Final = 10.0
_WORDS: Final = {
    "jobs": "training jobs that have not ended",
    "bytes": "bytes of vectors and data sets",
    "vectors": "vectors, those of unfinished trainings included",
}


async def read_use(session: AsyncSession, quotas: Quotas) -> Use:
    """What the workspace holds, where that is limited."""
    return await _use(session) if quotas.limits_stored else {}


async def require_within(
    session: AsyncSession, quotas: Quotas, *, before: Use | None = None, more_bytes: int = 0
) -> None:
    """Returns when what was added to the workspace, as the session sees it, is within the limits.

    Others who are limited wait here until the session ends, so that no two pass a limit together:
    to be asked last.

    What did not grow since `before` is refused by no limit; `more_bytes` shall be stored besides.

    Raises:
        BusyError: There are too many unfinished jobs.
        QuotaExceededError: There are too many bytes or vectors.
    """
    if not quotas.limits_stored:
        return
    lock = lock_number(f"quota\0{workspace_of(session)}")
    await session.execute(select(func.pg_advisory_xact_lock(lock)))
    use = await _use(session)
    before = use if before is None else before
    limits = asdict(quotas)
    for name, found in {**use, "bytes": use["bytes"] + more_bytes}.items():
        limit = limits[name]
        if limit is None or found <= max(limit, before[name]):
            continue
        message = (
            f"The quota of this key: wanted at most {limit} {_WORDS[name]} in the workspace "
            f"{workspace_of(session)}, found {found} with what was asked for"
        )
        details = {"quota": name, "limit": limit, "found": found}
        if name == "jobs":
            raise BusyError(message, details=details, retry_after_seconds=JOB_RETRY_SECONDS)
        raise QuotaExceededError(message, details=details)


async def largest_content(session: AsyncSession, quotas: Quotas) -> float:
    """The most bytes that one thing may have, which may be among those that are stored."""
    if quotas.bytes is None:
        return math.inf
    return max(quotas.bytes, (await _use(session))["bytes"])


async def _use(session: AsyncSession) -> dict[str, int]:
    unfinished = select(func.count()).where(JobRow.state.in_(UNFINISHED_STATES))
    making = unfinished.where(~JobRow.config.has_key("evaluate"))
    kept = select(func.count()).where(VectorRow.deleted.is_(None))
    jobs, made, vectors = [await session.scalar(query) or 0 for query in (unfinished, making, kept)]
    size = 0
    for table in (VectorRow, DatasetRow):
        stored = select(func.sum(table.size_bytes)).where(table.deleted.is_(None))
        size += int(await session.scalar(stored) or 0)
    return {"jobs": jobs, "bytes": size, "vectors": vectors + made}
