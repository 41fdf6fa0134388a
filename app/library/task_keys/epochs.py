"""The epochs of spaces, which tell an index what has changed.

An epoch's row lock is held until the commit, so epochs become visible in order and none is ever
missed; a serial number would not promise that.
"""

import uuid
from typing import Literal, NamedTuple, TypeAlias

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import InvalidInputError
from app.library.tables import IndexChangeRow, IndexEpochRow

Operation: TypeAlias = Literal["put", "remove"]


class SpaceState(NamedTuple):
    """How a space is now: its epoch, the length of a row, and its picture's part if it has two."""

    epoch: int
    dimension: int
    image_width: int | None


async def raise_epoch(
    session: AsyncSession,
    *,
    space: str,
    shape: tuple[int, int | None],
    vector_id: uuid.UUID,
    operation: Operation,
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
    session.add(IndexChangeRow(space=space, epoch=epoch, vector_id=vector_id, operation=operation))
    await session.flush()
    return int(epoch)


async def current_epochs(session: AsyncSession) -> dict[str, int]:
    """The epoch of every space."""
    query = select(IndexEpochRow.space, IndexEpochRow.epoch)
    return {row.space: row.epoch for row in await session.execute(query)}


async def find_space(session: AsyncSession, space: str) -> SpaceState | None:
    """How a space is now, or None when nothing was ever put there."""
    query = select(IndexEpochRow.epoch, IndexEpochRow.dimension, IndexEpochRow.image_width)
    found = (await session.execute(query.where(IndexEpochRow.space == space))).one_or_none()
    return None if found is None else SpaceState(*found)


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
