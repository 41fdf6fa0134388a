"""Access keys in the database: made, looked up, listed, revoked. Secrets never come near it."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.access import (
    MAX_NAME_CHARACTERS,
    MAX_QUOTA,
    SCOPES,
    AccessKey,
    Quotas,
    Token,
    new_token,
)
from app.core.errors import JSON, InvalidInputError, NotFoundError
from app.core.identifiers import check_name
from app.library.access.access_tables import AccessKeyRow
from app.library.access.audit import write_audit
from app.library.records import record_of
from app.library.workspaces import workspace_of

LAST_USED_EVERY: Final = dt.timedelta(minutes=1)


def _record(row: AccessKeyRow) -> AccessKey:
    quotas = Quotas(
        requests=row.max_requests, jobs=row.max_jobs, bytes=row.max_bytes, vectors=row.max_vectors
    )
    return record_of(AccessKey, row, quotas=quotas)


async def create_access_key(
    session: AsyncSession,
    *,
    name: str,
    scopes: Sequence[str],
    valid_days: int | None = None,
    not_after: dt.datetime | None = None,
    quotas: Quotas | None = None,
) -> tuple[AccessKey, Token]:
    """A new key to the session's workspace with its secret, which nobody can show again.

    It ends after so many days, and not after a moment; never by itself where neither is given.

    Raises:
        InvalidInputError: A scope is unknown or none is given, the name is empty or too long, a
            quota is negative, or it would end at once.
    """
    check_name(workspace_of(session), what="workspace")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        found = ", ".join(unknown) or "none"
        raise InvalidInputError(
            f"Scopes of a key: wanted some of {', '.join(SCOPES)}, found {found}"
        )
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise InvalidInputError(
            f"A key's name: wanted 1 to {MAX_NAME_CHARACTERS} printable characters"
        )
    if valid_days is not None and valid_days < 1:
        raise InvalidInputError(f"A key's days: wanted at least 1, found {valid_days}")
    limits = asdict(quotas or Quotas())
    for what, limit in limits.items():
        if limit is not None and not 0 <= limit <= MAX_QUOTA:
            raise InvalidInputError(f"A quota of {what}: wanted 0 to {MAX_QUOTA}, found {limit}")
    now = dt.datetime.now(dt.UTC)
    own_end = None if valid_days is None else now + dt.timedelta(days=valid_days)
    expires = min((end for end in (own_end, not_after) if end is not None), default=None)
    token = new_token()
    row = AccessKeyRow(
        id=token.id,
        workspace=workspace_of(session),
        name=name,
        digest=token.digest,
        scopes=[scope for scope in SCOPES if scope in scopes],
        expires=expires,
        **{f"max_{what}": limit for what, limit in limits.items()},
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    set_limits = {what: limit for what, limit in limits.items() if limit is not None}
    details: dict[str, JSON] = {"name": name, "scopes": list(row.scopes), "quotas": set_limits}
    await write_audit(session, action="key.create", subject=token.id, details=details)
    return _record(row), token


async def find_access_key(session: AsyncSession, token: Token) -> AccessKey | None:
    """The key of this token, valid or not, or None when there is none or the secret is another.

    Notes, once a minute, that it was used.
    """
    query = select(AccessKeyRow).where(AccessKeyRow.id == token.id)
    row = (await session.scalars(query)).one_or_none()
    if row is None or not token.is_of(row.digest):
        return None
    now = dt.datetime.now(dt.UTC)
    if row.last_used is None or row.last_used < now - LAST_USED_EVERY:
        row.last_used = now
        await session.flush()
    return _record(row)


async def list_access_keys(session: AsyncSession) -> list[AccessKey]:
    """Every key of the workspace that was ever made, newest first."""
    query = select(AccessKeyRow).order_by(AccessKeyRow.created.desc(), AccessKeyRow.id)
    return [_record(row) for row in await session.scalars(query)]


async def revoke_access_key(session: AsyncSession, key_id: str) -> AccessKey:
    """The key, which opens nothing from now on; doing it again changes nothing.

    Raises:
        NotFoundError: There is no such key.
    """
    query = select(AccessKeyRow).where(AccessKeyRow.id == key_id).with_for_update()
    row = (await session.scalars(query)).one_or_none()
    if row is None:
        raise NotFoundError("There is no such key")
    if row.revoked is None:
        row.revoked = func.clock_timestamp()
        await session.flush()
        await session.refresh(row)
        await write_audit(
            session,
            action="key.revoke",
            subject=key_id,
            details={"name": row.name},
            workspace=row.workspace,
        )
    return _record(row)


async def has_valid_access_key(session: AsyncSession) -> bool:
    """Whether anybody holds a key that opens something."""
    query = select(AccessKeyRow.id).where(
        AccessKeyRow.revoked.is_(None),
        or_(AccessKeyRow.expires.is_(None), AccessKeyRow.expires > func.clock_timestamp()),
    )
    return await session.scalar(query.limit(1)) is not None
