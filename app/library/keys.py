"""Task embeddings of stored vectors, and the epochs that tell an index what has changed.

Every change to a space's keys, or to what a search is narrowed by, raises the space's epoch in the
same transaction. The epoch's row lock is held until the commit, so epochs become visible in order
and none is ever missed; a serial number would not promise that.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import InvalidInputError, NotFoundError
from app.library.records import VectorStatus
from app.library.tables import IndexChangeRow, IndexEpochRow, KeyRow, VectorRow

MAX_EXEMPLARS: Final = 16
MAX_DIMENSION: Final = 16_384
MAX_SPACE_CHARACTERS: Final = 200
DTYPE: Final = np.dtype("<f4")

Operation: TypeAlias = Literal["put", "remove"]
Float32Array: TypeAlias = npt.NDArray[np.float32]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class VectorKeys:
    """All keys of one set of vectors in one space, with what a search is narrowed by.

    Attributes:
        vector_id: Whose keys.
        name: Of the vectors, shared by all their versions.
        backbone_fingerprint: What the vectors were made for.
        status: Of the vectors.
        embeddings: `[keys, dimension]` float32, rows of length 1, the centroid first.
        threshold: Least similarity at which a query counts as this task.
    """

    vector_id: uuid.UUID
    name: str
    backbone_fingerprint: str
    status: VectorStatus
    embeddings: Float32Array
    threshold: float


def unit_rows(embeddings: FloatArray) -> Float32Array:
    """The rows as float32 of length 1.

    Args:
        embeddings: `[rows, dimension]`.

    Raises:
        InvalidInputError: The shape is wrong, or a row is zero or not finite.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or not 1 <= rows.shape[1] <= MAX_DIMENSION:  # noqa: PLR2004 - a matrix
        raise InvalidInputError(f"Wanted embeddings [n, 1..{MAX_DIMENSION}], found {rows.shape}")
    if not np.isfinite(rows).all():
        raise InvalidInputError("An embedding has numbers that are not finite")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise InvalidInputError("An embedding has no direction")
    unit: Float32Array = (rows / norms).astype(np.float32)
    return unit


async def _raise_epoch(
    session: AsyncSession, *, space: str, dimension: int, vector_id: uuid.UUID, operation: Operation
) -> int:
    statement = (
        insert(IndexEpochRow)
        .values(space=space, epoch=1, dimension=dimension)
        .on_conflict_do_update(
            index_elements=[IndexEpochRow.space], set_={"epoch": IndexEpochRow.epoch + 1}
        )
        .returning(IndexEpochRow.epoch, IndexEpochRow.dimension)
    )
    epoch, found = (await session.execute(statement)).one()
    if found != dimension:
        raise InvalidInputError(f"Space {space} wants dimension {found}, found {dimension}")
    session.add(IndexChangeRow(space=space, epoch=epoch, vector_id=vector_id, operation=operation))
    await session.flush()
    return int(epoch)


async def _require_live(session: AsyncSession, vector_id: uuid.UUID) -> None:
    # The lock makes a delete wait, so that a deleted vector cannot gain keys.
    query = select(VectorRow.deleted).where(VectorRow.id == vector_id)
    found = (await session.execute(query.with_for_update(read=True))).one_or_none()
    if found is None or found.deleted is not None:
        raise NotFoundError(f"No vectors {vector_id}")


async def add_keys(
    session: AsyncSession,
    *,
    vector_id: uuid.UUID,
    space: str,
    centroid: FloatArray,
    exemplars: FloatArray,
    threshold: float,
) -> int:
    """Puts the keys of one set of vectors in the place of any it had in this space.

    Args:
        session: An open session; the space stays locked until it commits.
        vector_id: Whose keys.
        space: Identity of the encoder; spaces never mix.
        centroid: `[dimension]`.
        exemplars: `[n, dimension]` with n <= 16; may be empty.
        threshold: Least similarity at which a query counts as this task, from -1 to 1.

    Returns:
        The space's new epoch.

    Raises:
        InvalidInputError: A shape, number or name is out of bounds.
        NotFoundError: There are no such vectors.
    """
    if not 0 < len(space) <= MAX_SPACE_CHARACTERS or not space.isprintable():
        raise InvalidInputError(f"A space has 1 to {MAX_SPACE_CHARACTERS} printable characters")
    if not -1 <= threshold <= 1:
        raise InvalidInputError(f"A threshold is between -1 and 1, found {threshold}")
    if len(exemplars) > MAX_EXEMPLARS:
        raise InvalidInputError(f"At most {MAX_EXEMPLARS} exemplars, found {len(exemplars)}")
    parts = [np.atleast_2d(centroid), exemplars] if len(exemplars) else [np.atleast_2d(centroid)]
    try:
        rows = unit_rows(np.concatenate(parts))
    except ValueError:
        raise InvalidInputError("Centroid and exemplars differ in dimension") from None
    await _require_live(session, vector_id)
    epoch = await _raise_epoch(
        session, space=space, dimension=rows.shape[1], vector_id=vector_id, operation="put"
    )
    old = delete(KeyRow).where(KeyRow.space == space, KeyRow.vector_id == vector_id)
    await session.execute(old)
    session.add_all(
        KeyRow(
            vector_id=vector_id,
            space=space,
            kind="exemplar" if position else "centroid",
            embedding=row.astype(DTYPE).tobytes(),
            threshold=float(threshold),
        )
        for position, row in enumerate(rows)
    )
    await session.flush()
    return epoch


async def remove_keys(session: AsyncSession, *, vector_id: uuid.UUID) -> dict[str, int]:
    """Takes the keys of one set of vectors out of every space.

    Returns:
        The new epoch of each space that had some.
    """
    epochs = await _raise_epochs(session, vector_id, operation="remove")
    await session.execute(delete(KeyRow).where(KeyRow.vector_id == vector_id))
    return epochs


async def refresh_keys(session: AsyncSession, *, vector_id: uuid.UUID) -> dict[str, int]:
    """Says that what a search is narrowed by has changed of one set of vectors.

    Returns:
        The new epoch of each space in which it has keys.
    """
    return await _raise_epochs(session, vector_id, operation="put")


async def _raise_epochs(
    session: AsyncSession, vector_id: uuid.UUID, *, operation: Operation
) -> dict[str, int]:
    """Raises the epoch of every space in which the vectors have keys, in one order for all."""
    query = (
        select(KeyRow.space, IndexEpochRow.dimension)
        .join(IndexEpochRow, IndexEpochRow.space == KeyRow.space)
        .where(KeyRow.vector_id == vector_id)
        .distinct()
        .order_by(KeyRow.space)
    )
    return {
        space: await _raise_epoch(
            session, space=space, dimension=dimension, vector_id=vector_id, operation=operation
        )
        for space, dimension in (await session.execute(query)).all()
    }


async def current_epochs(session: AsyncSession) -> dict[str, int]:
    """The epoch of every space."""
    query = select(IndexEpochRow.space, IndexEpochRow.epoch)
    return {row.space: row.epoch for row in await session.execute(query)}


async def find_space(session: AsyncSession, space: str) -> tuple[int, int] | None:
    """Epoch and dimension of a space, or None when nothing was ever put there."""
    query = select(IndexEpochRow.epoch, IndexEpochRow.dimension)
    found = (await session.execute(query.where(IndexEpochRow.space == space))).one_or_none()
    return None if found is None else (found.epoch, found.dimension)


async def changed_vectors(
    session: AsyncSession, space: str, *, after: int, until: int
) -> set[uuid.UUID]:
    """The vectors whose keys changed in the epochs `after < epoch <= until`."""
    query = select(IndexChangeRow.vector_id).where(
        IndexChangeRow.space == space,
        IndexChangeRow.epoch > after,
        IndexChangeRow.epoch <= until,
    )
    return set(await session.scalars(query))


async def load_keys(
    session: AsyncSession, space: str, *, vector_ids: Iterable[uuid.UUID] | None = None
) -> list[VectorKeys]:
    """The keys of the given vectors, or of all, as they are now."""
    query = (
        select(KeyRow.vector_id, KeyRow.embedding, KeyRow.threshold)
        .where(KeyRow.space == space)
        .order_by(KeyRow.vector_id, KeyRow.id)
    )
    owners = select(
        VectorRow.id, VectorRow.name, VectorRow.backbone_fingerprint, VectorRow.status
    ).where(VectorRow.id.in_(select(KeyRow.vector_id).where(KeyRow.space == space)))
    if vector_ids is not None:
        wanted = list(vector_ids)
        query = query.where(KeyRow.vector_id.in_(wanted))
        owners = owners.where(VectorRow.id.in_(wanted))
    grouped: dict[uuid.UUID, tuple[list[bytes], float]] = {}
    for vector_id, embedding, threshold in await session.execute(query):
        grouped.setdefault(vector_id, ([], threshold))[0].append(embedding)
    # Not joined above: each key would carry the same text again.
    return [
        VectorKeys(
            vector_id=row.id,
            name=row.name,
            backbone_fingerprint=row.backbone_fingerprint,
            status=cast("VectorStatus", row.status),
            embeddings=_matrix(grouped[row.id][0]),
            threshold=grouped[row.id][1],
        )
        for row in await session.execute(owners.order_by(VectorRow.id))
        if row.id in grouped
    ]


def _matrix(rows: Sequence[bytes]) -> Float32Array:
    return np.frombuffer(b"".join(rows), dtype=DTYPE).reshape(len(rows), -1)
