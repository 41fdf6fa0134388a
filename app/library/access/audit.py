"""The audit trail: who did what to which thing, written once in its own transaction."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import JSON
from app.library.access.access_tables import AuditRow
from app.library.access.actors import current_actor
from app.library.records import record_of
from app.library.workspaces import workspace_of


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


async def write_audit(
    session: AsyncSession,
    *,
    action: str,
    subject: str,
    details: Mapping[str, JSON] | None = None,
    workspace: str | None = None,
) -> None:
    """Adds a deed of the key behind the request at hand; in the session's workspace, or another."""
    session.add(
        AuditRow(
            workspace=workspace or workspace_of(session),
            action=action,
            subject=subject,
            details=dict(details or {}),
            actor=current_actor(),
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
    """Deeds in the order they were done."""
    query = select(AuditRow).where(AuditRow.id > after).order_by(AuditRow.id).limit(limit)
    if subject is not None:
        query = query.where(AuditRow.subject == subject)
    if action is not None:
        query = query.where(AuditRow.action == action)
    return [record_of(AuditRecord, row) for row in await session.scalars(query)]
