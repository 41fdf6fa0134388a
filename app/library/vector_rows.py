"""Stored rows of vectors: how one becomes a record, its file with its digest, and its backbone."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import ARRAY, ColumnElement, Select, Text, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.backbones import BackboneDescription
from app.core.errors import CorruptDataError, NotFoundError
from app.core.identifiers import sha256_hex
from app.library.records import VectorRecord, record_of
from app.library.tables import AliasRow, BackboneRow, VectorRow

# What a record has of its row, and of its backbone's.
_OWN: Final = [one.name for one in fields(VectorRecord) if one.name not in {"backbone", "aliases"}]
_OF_BACKBONE: Final = [one.name for one in fields(BackboneDescription)]
# Under a name of its own, since callers may join the aliases to narrow the query.
_OWN_ALIASES: Final = aliased(AliasRow)
# In one statement and put together once: every steered answer asks it. Columns, since a session
# that keeps rows takes as long as the statement.
VECTOR_ROWS: Final[Select[*tuple[Any, ...]]] = (
    select(
        func.array(
            select(_OWN_ALIASES.alias)
            .where(_OWN_ALIASES.vector_id == VectorRow.id)
            .correlate(VectorRow)
            .scalar_subquery(),
            type_=ARRAY(Text),
        ),
        *(getattr(VectorRow, name) for name in _OWN),
        *(getattr(BackboneRow, name) for name in _OF_BACKBONE),
    )
    .select_from(VectorRow)
    .join(BackboneRow, BackboneRow.fingerprint == VectorRow.backbone_fingerprint)
)
"""Every set of vectors with its backbone and aliases; callers narrow it."""


async def read_vectors(
    session: AsyncSession,
    query: Select[*tuple[Any, ...]],
    **parameters: Any,  # noqa: ANN401 - of any column
) -> list[VectorRecord]:
    """The records of a query made from `VECTOR_ROWS`, in its order; what it asks for by name."""
    return [record_of_vector(columns) for columns in await session.execute(query, parameters)]


def record_of_vector(columns: Sequence[Any]) -> VectorRecord:
    """The record of one row of a query made from `VECTOR_ROWS`, which may have columns besides."""
    aliases, *values = columns
    own = dict(zip(_OWN, values, strict=False))
    backbone = dict(zip(_OF_BACKBONE, values[len(_OWN) :], strict=False))
    return VectorRecord(
        **{**own, "parents": tuple(own["parents"]), "tags": tuple(own["tags"])},
        backbone=BackboneDescription(**backbone),
        aliases=tuple(sorted(aliases)),
    )


async def get_blob(session: AsyncSession, vector_id: uuid.UUID) -> bytes:
    """The file of one set of vectors, deleted or not, after its digest was checked.

    Raises:
        NotFoundError: There is none.
        CorruptDataError: The bytes have changed since they were stored.
    """
    return await _verified(session, VectorRow.id == vector_id, wanted=f"vector {vector_id}")


async def get_blob_by_sha256(session: AsyncSession, sha256: str) -> bytes:
    """The file with this digest, deleted or not; raises what `get_blob` does."""
    wanted = f"vector file {sha256[:12]}"
    return await _verified(session, VectorRow.sha256 == sha256, wanted=wanted)


async def _verified(session: AsyncSession, is_it: ColumnElement[bool], *, wanted: str) -> bytes:
    query = select(VectorRow.blob, VectorRow.sha256).where(is_it).limit(1)
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise NotFoundError(f"There is no {wanted}")
    if await asyncio.to_thread(sha256_hex, found.blob) != found.sha256:
        raise CorruptDataError(f"The stored file {found.sha256[:12]} does not match its digest")
    return bytes(found.blob)


async def remember_backbone(session: AsyncSession, backbone: BackboneDescription) -> None:
    """Stores the description unless one with its fingerprint is there."""
    await session.execute(insert(BackboneRow).values(asdict(backbone)).on_conflict_do_nothing())


async def get_backbone(session: AsyncSession, fingerprint: str) -> BackboneDescription:
    """The description with this fingerprint.

    Raises:
        NotFoundError: It was never stored.
    """
    row = await session.get(BackboneRow, fingerprint)
    if row is None:
        raise NotFoundError(f"There is no backbone {fingerprint[:12]}")
    return record_of(BackboneDescription, row)
