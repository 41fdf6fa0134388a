"""What vectors were made from, back to the first data sets; deleted vectors are seen as well."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.library.tables import JobRow, VectorRow


@dataclass(frozen=True, kw_only=True)
class Source:
    """What one vector learnt from.

    `dataset_sha256` is None where nobody knows; `split` is the part of it that the job used, if it
    named one.
    """

    vector: str
    dataset_sha256: str | None
    job_id: uuid.UUID | None
    split: str | None


async def find_sources(session: AsyncSession, ids: Sequence[uuid.UUID]) -> list[Source]:
    """What these vectors and everything that they were combined from learnt from, oldest first.

    A weighted sum learnt nothing itself, so only its parts are told.
    """
    roots = select(VectorRow.id).where(VectorRow.id.in_(ids)).cte("lineage", recursive=True)
    parents = select(func.unnest(VectorRow.parents)).where(VectorRow.id == roots.c.id)
    lineage = roots.union(parents)
    query = (
        select(
            VectorRow.name,
            VectorRow.version,
            VectorRow.dataset_sha256,
            VectorRow.job_id,
            JobRow.config,
        )
        .outerjoin(JobRow, JobRow.id == VectorRow.job_id)
        .where(
            VectorRow.id.in_(select(lineage.c.id)),
            or_(VectorRow.dataset_sha256.is_not(None), func.cardinality(VectorRow.parents) == 0),
        )
        .order_by(VectorRow.id)
    )
    return [
        Source(
            vector=f"{row.name}@{row.version}",
            dataset_sha256=row.dataset_sha256,
            job_id=row.job_id,
            split=(row.config or {}).get("split"),
        )
        for row in await session.execute(query)
    ]
