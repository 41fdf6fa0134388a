"""What vectors were made from, back to the first data sets; deleted vectors are seen as well."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Text, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.library.tables import JobRow, VectorRow


async def find_sources(
    session: AsyncSession, ids: Sequence[uuid.UUID]
) -> Sequence[Row[*tuple[Any, ...]]]:
    """What these vectors and everything that they were combined from learnt from, oldest first.

    Each has the `vector`, its `job_id`, the `dataset_sha256`, None where nobody knows, and the
    `split` of it that the job used, if it named one. A weighted sum learnt nothing itself, so only
    its parts are told.
    """
    roots = select(VectorRow.id).where(VectorRow.id.in_(ids)).cte("lineage", recursive=True)
    parents = select(func.unnest(VectorRow.parents)).where(VectorRow.id == roots.c.id)
    lineage = roots.union(parents)
    query = (
        select(
            func.concat(VectorRow.name, "@", VectorRow.version, type_=Text).label("vector"),
            VectorRow.dataset_sha256,
            VectorRow.job_id,
            JobRow.config["split"].astext.label("split"),
        )
        .outerjoin(JobRow, JobRow.id == VectorRow.job_id)
        .where(
            VectorRow.id.in_(select(lineage.c.id)),
            or_(VectorRow.dataset_sha256.is_not(None), func.cardinality(VectorRow.parents) == 0),
        )
        .order_by(VectorRow.id)
    )
    return (await session.execute(query)).all()
