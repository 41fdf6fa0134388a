"""How a stored row of vectors becomes a record; private to the library."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from sqlalchemy import ARRAY, Select, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.library.backbones import describe
from app.library.database import FRESH
from app.library.records import VectorRecord, record_of
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
    return record_of(
        VectorRecord,
        row,
        backbone=describe(backbone),
        aliases=tuple(sorted(aliases)),
    )


async def read_vectors(session: AsyncSession, query: Rows) -> list[VectorRecord]:
    """The records of a query made from `VECTOR_ROWS`, in its order."""
    found = await session.execute(query, execution_options=FRESH)
    return [_record(row, backbone, aliases) for row, backbone, aliases in found]
