"""The tables of keys that open the api and of deeds that are recorded, private to the library."""

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity
from sqlalchemy.orm import Mapped, mapped_column

from app.library.tables import NOW, Table


class AuditRow(Table):
    """One deed, written once; a trigger refuses changes."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    action: Mapped[str] = mapped_column(index=True)
    subject: Mapped[str] = mapped_column(index=True)
    actor: Mapped[str | None]
    details: Mapped[dict[str, Any]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)


class AccessKeyRow(Table):
    """A key that opens the api: what it allows, and a digest of its secret."""

    __tablename__ = "access_keys"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest_length"),
        CheckConstraint("cardinality(scopes) > 0", name="scopes"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[bytes]
    scopes: Mapped[list[str]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    expires: Mapped[dt.datetime | None]
    revoked: Mapped[dt.datetime | None]
    last_used: Mapped[dt.datetime | None]
