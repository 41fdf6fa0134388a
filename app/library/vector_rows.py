"""How a stored row of vectors becomes a record; private to the library."""

from collections.abc import Iterable
from typing import TypeAlias, cast

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.library.aliases import aliases_of
from app.library.backbones import describe
from app.library.database import FRESH
from app.library.records import VectorRecord, VectorStatus
from app.library.tables import BackboneRow, VectorRow

Rows: TypeAlias = Select[VectorRow, BackboneRow]


def _record(row: VectorRow, backbone: BackboneRow, aliases: Iterable[str]) -> VectorRecord:
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
        status=cast("VectorStatus", row.status),
        description=row.description,
        tags=tuple(row.tags),
        aliases=tuple(sorted(aliases)),
        created=row.created,
        deleted=row.deleted,
    )


def vector_rows() -> Rows:
    """The query for every set of vectors with its backbone, to be narrowed by the caller."""
    return select(VectorRow, BackboneRow).join(
        BackboneRow, BackboneRow.fingerprint == VectorRow.backbone_fingerprint
    )


async def read_vectors(session: AsyncSession, query: Rows) -> list[VectorRecord]:
    """The records of a query made from `vector_rows`, in its order."""
    found = (await session.execute(query, execution_options=FRESH)).all()
    aliases = await aliases_of(session, [row.id for row, _ in found])
    return [_record(row, backbone, aliases.get(row.id, ())) for row, backbone in found]
