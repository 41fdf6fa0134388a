"""One change to many vectors: each behind a savepoint of its own, so one refusal stops no other."""

import uuid
from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import InvalidInputError, VLibraryError
from app.core.identifiers import LATEST, check_name
from app.core.states import VectorStatus
from app.library.aliases import lock_name
from app.library.records import VectorRecord
from app.library.tables import VectorRow
from app.library.vector_rows import VECTOR_ROWS, read_vectors
from app.library.vectors import delete_vector, get_vector, update_vector

Action: TypeAlias = Literal["delete", "tag", "untag", "set-status"]


async def change_each(
    session: AsyncSession,
    refs: Sequence[str],
    *,
    action: Action,
    tags: Collection[str] = (),
    status: VectorStatus | None = None,
) -> dict[str, VectorRecord | VLibraryError]:
    """What became of each, in the order given: the vectors, or the refusal, which is not raised.

    Vectors are as they are after the change, or were before they were deleted.

    A reference means what it did before anything was changed: `a` and `a@latest` are one vector,
    which is changed once.
    """
    named = {ref: await _look_up(session, ref) for ref in dict.fromkeys(refs)}
    found = {one.id: one for one in named.values() if isinstance(one, VectorRecord)}
    changed: dict[uuid.UUID, VectorRecord | VLibraryError] = {}
    # All names first, as every other change takes a name before the keys of a space, and both in
    # one order: so two changes wait for each other once at most.
    for name in sorted({one.name for one in found.values()}):
        await lock_name(session, name)
    for record in sorted(found.values(), key=lambda one: (one.backbone.fingerprint, one.name)):
        try:
            async with session.begin_nested():
                changed[record.id] = await _change(
                    session, record, action=action, tags=tags, status=status
                )
        except VLibraryError as error:
            changed[record.id] = error
    return {
        ref: one if isinstance(one, VLibraryError) else changed[one.id]
        for ref, one in named.items()
    }


async def _look_up(session: AsyncSession, ref: str) -> VectorRecord | VLibraryError:
    try:
        return await get_vector(session, ref)
    except VLibraryError as error:
        return error


async def _change(
    session: AsyncSession,
    record: VectorRecord,
    *,
    action: Action,
    tags: Collection[str],
    status: VectorStatus | None,
) -> VectorRecord:
    if action == "delete":
        await delete_vector(session, record.id)
        return record
    if action == "set-status":
        return await update_vector(session, record.id, status=status)
    # As they are now that the name is locked, so that no other change of them is lost.
    current = set((await get_vector(session, record.id)).tags)
    changed = current.union(tags) if action == "tag" else current.difference(tags)
    return await update_vector(session, record.id, tags=changed)


async def prune_versions(
    session: AsyncSession, name: str, *, keep_last: int
) -> tuple[VectorRecord, ...]:
    """Deletes all but the newest versions of a name; what an alias points at stays as well.

    The name stays locked until the session commits.

    Returns:
        The versions that were deleted, newest first.

    Raises:
        InvalidInputError: The name is malformed, or nothing would be kept.
        NotFoundError: Nothing was ever stored under the name.
    """
    if keep_last < 1:
        raise InvalidInputError(f"Wanted at least 1 version to keep, found {keep_last}")
    await lock_name(session, check_name(name))
    stored = VECTOR_ROWS.where(VectorRow.name == name, VectorRow.deleted.is_(None))
    older = stored.order_by(VectorRow.version.desc()).offset(keep_last)
    records = await read_vectors(session, older)
    pruned = tuple(record for record in records if not set(record.aliases) - {LATEST})
    for record in pruned:
        await delete_vector(session, record.id)
    return pruned
