"""What vectors were made from, back to the first data sets; deleted vectors are seen as well."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.library.tables import JobRow, VectorRow

MAX_GENERATIONS: Final = 32


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
    """What these vectors and everything that they were combined from learnt from.

    A weighted sum learnt nothing itself, so only its parts are told.
    """
    seen: set[uuid.UUID] = set()
    sources: list[Source] = []
    wanted = list(ids)
    for _ in range(MAX_GENERATIONS):
        wanted = sorted(set(wanted) - seen)
        if not wanted:
            break
        seen.update(wanted)
        query = (
            select(
                VectorRow.name,
                VectorRow.version,
                VectorRow.dataset_sha256,
                VectorRow.job_id,
                VectorRow.parents,
                JobRow.config,
            )
            .outerjoin(JobRow, JobRow.id == VectorRow.job_id)
            .where(VectorRow.id.in_(wanted))
            .order_by(VectorRow.id)
        )
        wanted = []
        for row in await session.execute(query):
            wanted += row.parents
            if row.dataset_sha256 is not None or not row.parents:
                source = Source(
                    vector=f"{row.name}@{row.version}",
                    dataset_sha256=row.dataset_sha256,
                    job_id=row.job_id,
                    split=(row.config or {}).get("split"),
                )
                sources.append(source)
    return sources
