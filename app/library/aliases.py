"""Aliases: movable pointers from a name to one of its versions.

`latest` moves by itself: to each new version, and back when the newest is deleted. Every other
alias is moved by compare-and-set.
"""

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import ConflictError, InvalidInputError, NotFoundError
from app.core.identifiers import LATEST, check_alias
from app.library.access.audit import write_audit
from app.library.records import AliasRecord, record_of
from app.library.tables import AliasRow, VectorNameRow, VectorRow


async def lock_name(session: AsyncSession, name: str) -> None:
    """Waits until this transaction alone may change what is under the name.

    Raises:
        NotFoundError: Nothing was ever stored under it.
    """
    query = select(VectorNameRow.name).where(VectorNameRow.name == name).with_for_update()
    if await session.scalar(query) is None:
        raise NotFoundError(f"There is no vector named {name}")


async def _point(session: AsyncSession, vector: VectorRow, alias: str) -> AliasRecord:
    target = {"vector_id": vector.id, "version": vector.version, "updated": func.clock_timestamp()}
    statement = (
        insert(AliasRow)
        .values(workspace=vector.workspace, name=vector.name, alias=alias, **target)
        .on_conflict_do_update(
            index_elements=[AliasRow.workspace, AliasRow.name, AliasRow.alias], set_=target
        )
        .returning(AliasRow)
    )
    row = (await session.scalars(statement)).one()
    return record_of(AliasRecord, row)


async def _find(session: AsyncSession, name: str, alias: str) -> AliasRow | None:
    query = select(AliasRow).where(AliasRow.name == name, AliasRow.alias == alias)
    return (await session.scalars(query)).one_or_none()


async def alias_version(session: AsyncSession, name: str, alias: str) -> int:
    """Where an alias points, 0 for nowhere, until this transaction ends.

    Raises:
        NotFoundError: Nothing was ever stored under the name.
    """
    await lock_name(session, name)
    current = await _find(session, name, alias)
    return current.version if current else 0


async def point_latest(session: AsyncSession, name: str) -> None:
    """Points `latest` at the newest version that is not deleted, or drops it.

    The session holds the name's lock.
    """
    newest = (
        select(VectorRow)
        .where(VectorRow.name == name, VectorRow.deleted.is_(None))
        .order_by(VectorRow.version.desc())
        .limit(1)
    )
    vector = (await session.scalars(newest)).one_or_none()
    if vector is not None:
        await _point(session, vector, LATEST)
    else:
        gone = delete(AliasRow).where(AliasRow.name == name, AliasRow.alias == LATEST)
        await session.execute(gone)


async def set_alias(
    session: AsyncSession,
    name: str,
    alias: str,
    *,
    version: int,
    expected_version: int | None = None,
) -> AliasRecord:
    """Points an alias at a version.

    `expected_version` is where it must point now: 0 means that it must not exist yet, None that it
    does not matter.

    Raises:
        InvalidInputError: The alias is malformed or `latest`, which moves by itself.
        NotFoundError: No such name or version.
        ConflictError: It points elsewhere than expected.
    """
    if check_alias(alias) == LATEST:
        raise InvalidInputError(f"The alias {LATEST} always means the newest version")
    await lock_name(session, name)
    current = await _find(session, name, alias)
    found = _require_at(current, f"{name}@{alias}", expected=expected_version)
    query = select(VectorRow).where(
        VectorRow.name == name, VectorRow.version == version, VectorRow.deleted.is_(None)
    )
    vector = (await session.scalars(query)).one_or_none()
    if vector is None:
        raise NotFoundError(f"There is no vector {name}@{version}")
    record = await _point(session, vector, alias)
    await write_audit(
        session,
        action="alias.set",
        subject=f"{name}@{alias}",
        details={"version": version, "previous": found},
    )
    return record


def _require_at(current: AliasRow | None, alias: str, *, expected: int | None) -> int:
    """The version at which an alias points, 0 for none, if it is the expected one or any is."""
    found = current.version if current else 0
    if expected is not None and expected != found:
        raise ConflictError(
            f"Wanted {alias} at version {expected}, found {found}",
            details={"expected": expected, "found": found},
        )
    return found


async def delete_alias(
    session: AsyncSession, name: str, alias: str, *, expected_version: int | None = None
) -> None:
    """Takes an alias away; `expected_version` is where it must point now.

    Raises:
        InvalidInputError: It is `latest`.
        NotFoundError: It does not exist.
        ConflictError: It points elsewhere than expected.
    """
    if alias == LATEST:
        raise InvalidInputError(f"The alias {LATEST} cannot be deleted")
    await lock_name(session, name)
    current = await _find(session, name, alias)
    if current is None:
        raise NotFoundError(f"There is no alias {name}@{alias}")
    _require_at(current, f"{name}@{alias}", expected=expected_version)
    gone = delete(AliasRow).where(AliasRow.name == name, AliasRow.alias == alias)
    await session.execute(gone)
    details = {"previous": current.version}
    await write_audit(session, action="alias.delete", subject=f"{name}@{alias}", details=details)


async def list_aliases(session: AsyncSession, name: str) -> list[AliasRecord]:
    """All aliases of a name, sorted."""
    query = select(AliasRow).where(AliasRow.name == name).order_by(AliasRow.alias)
    return [record_of(AliasRecord, row) for row in await session.scalars(query)]
