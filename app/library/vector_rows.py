"""How a stored row of vectors becomes a record; private to the library."""

from collections.abc import Sequence
from typing import Final, TypeAlias, cast

from sqlalchemy import ARRAY, Select, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.library.backbones import describe
from app.library.database import FRESH
from app.library.records import VectorRecord, VectorStatus
from app.library.tables import AliasRow, BackboneRow, VectorRow

Rows: TypeAlias = Select[VectorRow, BackboneRow, Sequence[str]]

# Under a name of its own, since callers may join the aliases to narrow the query.
_OWN_ALIASES: Final = aliased(AliasRow)
# In one statement and put together once: every steered answer asks it.
VECTOR_ROWS: Final[Rows] = select(
    VectorRow,
    BackboneRow,
    func.array(
        select(_OWN_ALIASES.alias)
        .where(_OWN_ALIASES.vector_id == VectorRow.id)
        .correlate(VectorRow)
        .scalar_subquery(),
        type_=ARRAY(Text),
    ),
).join(BackboneRow, BackboneRow.fingerprint == VectorRow.backbone_fingerprint)
"""Every set of vectors with its backbone and aliases; callers narrow it."""


def _record(row: VectorRow, backbone: BackboneRow, aliases: Sequence[str]) -> VectorRecord:
    return VectorRecord(
        id=row.id,
        name=row.name,
        version=row.version,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        backbone=describe(backbone),
        method=row.method,
        shots=row.shots,
        dataset_sha256=row.dataset_sha256,
        job_id=row.job_id,
        parents=tuple(row.parents),
        hyper_parameters=dict(row.hyper_parameters),
        seed=row.seed,
        library_versions=dict(row.library_versions),
        norms=dict(row.norms),
        dose=row.dose,
        max_dose=row.max_dose,
        status=cast("VectorStatus", row.status),
        description=row.description,
        tags=tuple(row.tags),
        aliases=tuple(sorted(aliases)),
        created=row.created,
        deleted=row.deleted,
    )


async def read_vectors(session: AsyncSession, query: Rows) -> list[VectorRecord]:
    """The records of a query made from `VECTOR_ROWS`, in its order."""
    found = await session.execute(query, execution_options=FRESH)
    return [_record(row, backbone, aliases) for row, backbone, aliases in found]
