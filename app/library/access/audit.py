"""The audit trail: who did what to which thing, written once in its own transaction.

Who acts is told to the session, because the trail is written far below the request and nothing
between them has to know of keys.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.errors import JSON
from app.core.identifiers import is_id
from app.library.access.access_tables import AuditRow
from app.library.records import record_of
from app.library.workspaces import workspace_of

_ACTOR: Final = "actor"


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """One thing that was done.

    `id` grows with time, `actor` is the key that did it, where that is known, and `details` never
    hold a secret, a prompt or an image.
    """

    id: int
    action: str
    subject: str
    actor: str | None
    details: dict[str, Any]
    created: dt.datetime


def act_as(session: AsyncSession, actor: str | None) -> None:
    """What is done by the session from now on is done by this key."""
    session.info[_ACTOR] = actor


async def write_audit(
    session: AsyncSession,
    *,
    action: str,
    subject: str,
    details: Mapping[str, JSON] | None = None,
    workspace: str | None = None,
) -> None:
    """Adds an entry of the key that asks; in the session's workspace, or another."""
    session.add(
        AuditRow(
            workspace=workspace or workspace_of(session),
            action=action,
            subject=subject,
            details=dict(details or {}),
            actor=session.info.get(_ACTOR),
        )
    )
    await session.flush()


async def list_audit(
    session: AsyncSession,
    *,
    subject: str | None = None,
    action: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[AuditRecord]:
    """Entries in the order in which things were done.

    `subject` is what they were done to, by its id or by a name that the trail has of it, which may
    long be gone: `name`, or `name@version` of a vector.
    """
    query = select(AuditRow).where(AuditRow.id > after).order_by(AuditRow.id).limit(limit)
    if subject is not None:
        query = query.where(_is_of(subject))
    if action is not None:
        query = query.where(AuditRow.action == action)
    return [record_of(AuditRecord, row) for row in await session.scalars(query)]


def _is_of(subject: str) -> ColumnElement[bool]:
    if is_id(subject):
        # Found at once, and nothing is called so.
        return AuditRow.subject == subject.lower()
    name, _, version = subject.partition("@")
    facts = {"name": name, "version": int(version)} if version.isdecimal() else {"name": subject}
    named = aliased(AuditRow)
    called = select(named.subject).where(named.details.contains(facts))
    return or_(AuditRow.subject == subject, AuditRow.subject.in_(called))
