"""Task embeddings of stored vectors.

Every change to a space's keys, or to what a search is narrowed by, raises the space's epoch in the
same transaction.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.access import DEFAULT_WORKSPACE
from app.core.errors import InvalidInputError, NotFoundError
from app.core.states import VectorStatus
from app.core.vectors.card import MAX_DIMENSION, MAX_KEYS
from app.library.tables import IndexEpochRow, KeyRow, VectorRow
from app.library.task_keys.epochs import Operation, raise_epoch

MAX_SPACE_CHARACTERS: Final = 200
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


async def _require_live(session: AsyncSession, vector_id: uuid.UUID) -> None:
    # The lock makes a delete wait, so that a deleted vector cannot gain keys.
    query = select(VectorRow.deleted).where(VectorRow.id == vector_id)
    found = (await session.execute(query.with_for_update(read=True))).one_or_none()
    if found is None or found.deleted is not None:
        raise NotFoundError(f"There is no vector {vector_id}")


async def add_keys(
    session: AsyncSession,
    *,
    vector_id: uuid.UUID,
    space: str,
    exemplars: FloatArray,
    threshold: float,
    text_threshold: float | None = None,
    image_width: int | None = None,
) -> int:
    """Puts the keys of one set of vectors in the place of any it had in this space.

    Args:
        session: An open session; the space stays locked until it commits.
        vector_id: Whose keys.
        space: Identity of the encoder; spaces never mix.
        exemplars: `[n, dimension]`, from 1 to 64 of them.
        threshold: Least similarity at which a query counts as this task, from -1 to 1.
        text_threshold: Least similarity of the question, in a space of two parts; `threshold` is
            that of the picture then.
        image_width: Numbers of a row that belong to the picture; the others are the question's.
            None when rows have one part.

    Returns:
        The space's new epoch.

    Raises:
        InvalidInputError: A shape, number or name is out of bounds.
        NotFoundError: There are no such vectors.
    """
    if not 0 < len(space) <= MAX_SPACE_CHARACTERS or not space.isprintable():
        raise InvalidInputError(f"A space has 1 to {MAX_SPACE_CHARACTERS} printable characters")
    for value in (threshold, 0.0 if text_threshold is None else text_threshold):
        if not -1 <= value <= 1:
            raise InvalidInputError(f"A threshold is between -1 and 1, found {value}")
    if len(exemplars) > MAX_KEYS:
        raise InvalidInputError(f"At most {MAX_KEYS} exemplars, found {len(exemplars)}")
    if not len(exemplars):
        raise InvalidInputError("Wanted an exemplar, found none")
    rows = unit_rows(exemplars)
    _check_parts(rows, image_width=image_width, text_threshold=text_threshold)
    await _require_live(session, vector_id)
    epoch = await raise_epoch(
        session,
        space=space,
        shape=(rows.shape[1], image_width),
        vector_id=vector_id,
        operation="put",
    )
    old = delete(KeyRow).where(KeyRow.space == space, KeyRow.vector_id == vector_id)
    await session.execute(old)
    session.add_all(
        KeyRow(
            vector_id=vector_id,
            space=space,
            kind="exemplar",
            embedding=row.astype(DTYPE).tobytes(),
            threshold=float(threshold),
            text_threshold=text_threshold,
        )
        for row in rows
    )
    await session.flush()
    return epoch


def _check_parts(
    rows: Float32Array, *, image_width: int | None, text_threshold: float | None
) -> None:
    if (image_width is None) != (text_threshold is None):
        raise InvalidInputError("A text threshold and a picture's width go together")
    if image_width is None:
        return
    if not 0 < image_width < rows.shape[1]:
        raise InvalidInputError(
            f"A picture's part has 1 to {rows.shape[1] - 1} numbers, found {image_width}"
        )
    lengths = np.linalg.norm(rows[:, :image_width], axis=1)
    if not np.allclose(lengths, np.sqrt(0.5), atol=PART_TOLERANCE):
        raise InvalidInputError("A key's picture and question parts differ in length")


async def remove_keys(session: AsyncSession, *, vector_id: uuid.UUID) -> None:
    """Takes the keys of one set of vectors out of every space."""
    await refresh_keys(session, vector_id=vector_id, operation="remove")
    await session.execute(delete(KeyRow).where(KeyRow.vector_id == vector_id))


async def refresh_keys(
    session: AsyncSession, *, vector_id: uuid.UUID, operation: Operation = "put"
) -> None:
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
        await raise_epoch(
            session, space=space, shape=(width, image), vector_id=vector_id, operation=operation
        )


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
        query = query.where(VectorRow.id.in_(list(vector_ids)))
    found = []
    for row in await session.execute(query):
        facts = row._asdict()
        matrix = np.frombuffer(facts.pop("rows"), dtype=DTYPE).reshape(facts.pop("num_keys"), -1)
        found.append(VectorKeys(**facts, embeddings=matrix))
    return found
