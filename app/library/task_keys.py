"""Task embeddings of stored vectors, and the epochs that tell an index what of them has changed.

Every change to a space's keys, or to what a search is narrowed by, raises the space's epoch in the
same transaction. An epoch's row lock is held until the commit, so epochs become visible in order
and none is ever missed; a serial number would not promise that.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import ARRAY, Row, Uuid, any_, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.access import DEFAULT_WORKSPACE
from app.core.errors import InvalidInputError
from app.core.states import VectorStatus
from app.core.vectors.card import MAX_DIMENSION, KeyCard
from app.library.tables import IndexChangeRow, IndexEpochRow, KeyRow, VectorRow
from app.library.workspaces import seeing

DTYPE: Final = np.dtype("<f4")
PART_TOLERANCE: Final = 1e-3

Float32Array: TypeAlias = npt.NDArray[np.float32]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class VectorKeys:
    """All keys of one set of vectors in one space, with what a search is narrowed by.

    `embeddings` is `[keys, dimension]` float32, rows of length 1. `threshold` is the
    least similarity at which a query counts as this task: of its picture, in a space whose rows
    have a picture's part and a question's, with `text_threshold` for the question; None in a space
    of one part.
    """

    vector_id: uuid.UUID
    name: str
    backbone_fingerprint: str
    status: VectorStatus
    embeddings: Float32Array
    threshold: float
    text_threshold: float | None = None
    workspace: str = DEFAULT_WORKSPACE


def unit_rows(embeddings: FloatArray) -> Float32Array:
    """The rows as float32 of length 1.

    `[rows, dimension]` in and out.

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


async def add_keys(session: AsyncSession, key: KeyCard, *, vector_id: uuid.UUID) -> int:
    """Stores the keys of one set of vectors, which is new; the space stays locked until the commit.

    Returns:
        The space's new epoch.

    Raises:
        InvalidInputError: A row has no direction, its parts differ in length, or the space has rows
            of another shape, which stay: a training's, or any while this is no training's.
    """
    rows = unit_rows(key.matrix())
    _check_parts(rows, key)
    shape = (key.dimension, key.image_width)
    await _make_room(session, key.space, shape=shape, vector_id=vector_id)
    epoch = await _raise_epoch(session, space=key.space, shape=shape, vector_id=vector_id)
    session.add_all(
        KeyRow(
            vector_id=vector_id,
            space=key.space,
            embedding=row.astype(DTYPE).tobytes(),
            threshold=key.threshold,
            text_threshold=key.text_threshold,
        )
        for row in rows
    )
    await session.flush()
    return epoch


def _check_parts(rows: Float32Array, key: KeyCard) -> None:
    if (key.image_width is None) != (key.text_threshold is None):
        raise InvalidInputError("A text threshold and a picture's width go together")
    if key.image_width is None:
        return
    if key.image_width >= key.dimension:
        raise InvalidInputError(
            f"A picture's part has 1 to {key.dimension - 1} numbers, found {key.image_width}"
        )
    lengths = np.linalg.norm(rows[:, : key.image_width], axis=1)
    if not np.allclose(lengths, np.sqrt(0.5), atol=PART_TOLERANCE):
        raise InvalidInputError("A key's picture and question parts differ in length")


async def _make_room(
    session: AsyncSession, space: str, *, shape: tuple[int, int | None], vector_id: uuid.UUID
) -> None:
    """Gives a space another shape where no keys are in it, or none but imported ones, which go.

    These go only for the keys of a training: its encoder knows the shape, a file may say anything.
    """
    known = await session.get(IndexEpochRow, space, with_for_update=True)
    if known is None or (known.dimension, known.image_width) == shape:
        return
    is_trained = await session.scalar(select(VectorRow.job_id).where(VectorRow.id == vector_id))
    in_space = VectorRow.id.in_(select(KeyRow.vector_id).where(KeyRow.space == space))
    found = select(VectorRow.id, VectorRow.job_id).where(in_space)
    # A space belongs to all workspaces.
    with seeing(session, None):
        others = (await session.execute(found)).all()
    if others and (is_trained is None or any(other.job_id is not None for other in others)):
        return
    for other in others:
        await remove_keys(session, vector_id=other.id)
    known.dimension, known.image_width = shape
    await session.flush()


async def _raise_epoch(
    session: AsyncSession, *, space: str, shape: tuple[int, int | None], vector_id: uuid.UUID
) -> int:
    """The space's next epoch, with what it changed; the space is made when there is none.

    The space stays locked until the session commits. `shape` is the length of a row, and of its
    picture's part if it has two.

    Raises:
        InvalidInputError: The space has rows of another shape.
    """
    statement = (
        insert(IndexEpochRow)
        .values(space=space, epoch=1, dimension=shape[0], image_width=shape[1])
        .on_conflict_do_update(
            index_elements=[IndexEpochRow.space], set_={"epoch": IndexEpochRow.epoch + 1}
        )
        .returning(IndexEpochRow.epoch, IndexEpochRow.dimension, IndexEpochRow.image_width)
    )
    epoch, *found = (await session.execute(statement)).one()
    if tuple(found) != shape:
        raise InvalidInputError(
            f"Space {space} wants dimension {found[0]} with {found[1] or 'no'} numbers of a "
            f"picture, found {shape[0]} with {shape[1] or 'no'}"
        )
    change = insert(IndexChangeRow).values(space=space, vector_id=vector_id, epoch=epoch)
    await session.execute(
        change.on_conflict_do_update(
            index_elements=[IndexChangeRow.space, IndexChangeRow.vector_id],
            set_={"epoch": change.excluded.epoch},
        )
    )
    return int(epoch)


async def remove_keys(session: AsyncSession, *, vector_id: uuid.UUID) -> None:
    """Takes the keys of one set of vectors out of every space."""
    await refresh_keys(session, vector_id=vector_id)
    await session.execute(delete(KeyRow).where(KeyRow.vector_id == vector_id))


async def refresh_keys(session: AsyncSession, *, vector_id: uuid.UUID) -> None:
    """Says, wherever it has keys, that what narrows a search has changed of one set of vectors."""
    query = (
        select(KeyRow.space, IndexEpochRow.dimension, IndexEpochRow.image_width)
        .join(IndexEpochRow, IndexEpochRow.space == KeyRow.space)
        .where(KeyRow.vector_id == vector_id)
        .distinct()
        # In one order for all, since each space stays locked.
        .order_by(KeyRow.space)
    )
    for space, width, image in (await session.execute(query)).all():
        await _raise_epoch(session, space=space, shape=(width, image), vector_id=vector_id)


async def load_keys(
    session: AsyncSession, space: str, *, vector_ids: Iterable[uuid.UUID] | None = None
) -> list[VectorKeys]:
    """The keys of the given vectors, or of all, as they are now."""
    # In one row for each set of vectors: so no text comes again with every key.
    rows = func.string_agg(KeyRow.embedding, literal(b"")).aggregate_order_by(KeyRow.id)
    query = (
        select(
            VectorRow.id.label("vector_id"),
            VectorRow.workspace,
            VectorRow.name,
            VectorRow.backbone_fingerprint,
            VectorRow.status,
            func.min(KeyRow.threshold).label("threshold"),
            func.min(KeyRow.text_threshold).label("text_threshold"),
            func.count().label("num_keys"),
            rows.label("rows"),
        )
        .join(KeyRow, KeyRow.vector_id == VectorRow.id)
        .where(KeyRow.space == space)
        .group_by(VectorRow.id)
        .order_by(VectorRow.id)
    )
    if vector_ids is not None:
        # In one parameter, of which a statement takes 65,535.
        query = query.where(VectorRow.id == any_(literal([*vector_ids], ARRAY(Uuid))))
    found = []
    for row in await session.execute(query):
        facts = row._asdict()
        matrix = np.frombuffer(facts.pop("rows"), dtype=DTYPE).reshape(facts.pop("num_keys"), -1)
        found.append(VectorKeys(**facts, embeddings=matrix))
    return found


async def orphaned_keys(session: AsyncSession, space: str) -> list[uuid.UUID]:
    """The deleted vectors that have keys in a space all the same."""
    owners = select(KeyRow.vector_id).where(KeyRow.space == space)
    query = select(VectorRow.id).where(VectorRow.deleted.is_not(None), VectorRow.id.in_(owners))
    return [*await session.scalars(query.order_by(VectorRow.id))]


async def current_epochs(session: AsyncSession) -> dict[str, int]:
    """The epoch of every space."""
    query = select(IndexEpochRow.space, IndexEpochRow.epoch)
    return {row.space: row.epoch for row in await session.execute(query)}


async def get_space(session: AsyncSession, space: str) -> Row[int, int, int | None]:
    """How a known space is now: `epoch`, the `dimension` of a row, and its picture's `image_width`.

    The width is None where rows have one part. `Snapshot.build` takes the three by these names.
    """
    query = select(IndexEpochRow.epoch, IndexEpochRow.dimension, IndexEpochRow.image_width)
    return (await session.execute(query.where(IndexEpochRow.space == space))).one()


async def changed_vectors(session: AsyncSession, space: str, *, after: int) -> set[uuid.UUID]:
    """The vectors whose keys have changed after this epoch."""
    query = select(IndexChangeRow.vector_id).where(
        IndexChangeRow.space == space, IndexChangeRow.epoch > after
    )
    return set(await session.scalars(query))
