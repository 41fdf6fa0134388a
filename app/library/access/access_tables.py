"""The tables of keys, of answered requests and of the trail, private to the library."""

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.library.tables import NOW, Table
from app.library.workspaces import InWorkspace


class AuditRow(InWorkspace, Table):
    """One entry of the trail, written once; a trigger refuses changes."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    action: Mapped[str] = mapped_column(index=True)
    subject: Mapped[str] = mapped_column(index=True)
    actor: Mapped[str | None]
    details: Mapped[dict[str, Any]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)


class AccessKeyRow(InWorkspace, Table):
    """A key that opens the api: what it allows, and a digest of its secret."""

    __tablename__ = "access_keys"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_length"),
        CheckConstraint("cardinality(scopes) > 0", name="scopes"),
        Index("ix_access_keys_workspace", "workspace"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[bytes]
    scopes: Mapped[list[str]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    expires: Mapped[dt.datetime | None]
    revoked: Mapped[dt.datetime | None]
    last_used: Mapped[dt.datetime | None]
    max_requests: Mapped[int | None] = mapped_column(BigInteger)
    max_jobs: Mapped[int | None] = mapped_column(BigInteger)
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_vectors: Mapped[int | None] = mapped_column(BigInteger)


class AnsweredRequestRow(Table):
    """A request that carried a key of its own, and its answer; null for one that is a secret."""

    __tablename__ = "answered_requests"
    __table_args__ = (Index("ix_answered_requests_owner_created", "owner", "created"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes]
    status: Mapped[int]
    location: Mapped[str | None]
    body: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)
