"""Requests about keys and the audit trail, as values; nothing is sent here. For administrators."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from vlibrary_client.calls.arguments import listed, present, segment
from vlibrary_client.notebooks import listing
from vlibrary_client.types import Page
from vlibrary_client.wire.replies import Call, fetched, json_reader, posted

Scope: TypeAlias = Literal["read", "write", "train", "steer", "admin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The most that may be asked for with a key; `None` where it is not limited.

    Attributes:
        requests: Requests in flight in one process of the api.
        jobs: Training jobs of its workspace that have not ended.
        bytes: Bytes of the vectors and data sets of its workspace.
        vectors: Vectors of its workspace, those of unfinished trainings included.
    """

    requests: int | None = None
    jobs: int | None = None
    bytes: int | None = None
    vectors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A key that opens the api, without its secret; `last_used` is to the minute."""

    id: str
    name: str
    workspace: str
    scopes: tuple[Scope, ...]
    quotas: Quotas
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccessKey(AccessKey):
    """A key that was just made; `key` is what its holder sends, and is not shown in `repr`."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that was done: who (the id of a key), what, to which thing, when."""

    id: int
    action: str
    subject: str
    created: datetime
    actor: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """What was done, oldest first, iterated over as a `Page`; `next_after` continues it."""

    items: tuple[AuditEntry, ...]
    next_after: int | None = None

    _repr_html_ = listing

    def __iter__(self) -> Iterator[AuditEntry]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def create_key(
    name: str,
    scopes: Sequence[Scope],
    *,
    valid_days: int | None = None,
    quotas: Quotas | None = None,
) -> Call[NewAccessKey]:
    """Makes a key to the own workspace; its text is in this answer and never shown again.

    Args:
        name: What it is for.
        scopes: What it allows; `admin` allows everything.
        valid_days: After how many days it ends by itself.
        quotas: How much of it; never more than the own key may.

    Raises:
        InvalidInputError: A scope is unknown, or the name or the days are out of bounds.
        ConflictError: The key was made but its answer was lost on the way; revoke it.
    """
    body = {"name": name, "scopes": listed(scopes, "scopes"), "valid_days": valid_days}
    limits = {} if quotas is None else {"quotas": asdict(quotas)}
    # A second key is never made; if the first was made and its answer lost, that is told.
    return posted("/keys", NewAccessKey, body | limits)


def list_keys() -> Call[Page[AccessKey]]:
    """Every key that was ever made, newest first."""
    return fetched("/keys", Page[AccessKey])


def revoke_key(key_id: str) -> Call[AccessKey]:
    """Revokes a key by its id: after three seconds at most it opens nothing any more.

    Raises:
        NotFoundError: There is no such key.
    """
    path = f"/keys/{segment(key_id)}"
    return Call(method="DELETE", path=path, read=json_reader(AccessKey))


def list_audit(
    *, subject: str | None = None, action: str | None = None, after: int = 0, limit: int = 50
) -> Call[AuditPage]:
    """What was done, oldest first; it outlives what it tells of.

    Args:
        subject: Only what was done to this: its id, an alias such as `gears@prod`, or a name that
            it had, such as `gears` or `gears@3`, also if it is gone.
        action: Only this, such as `vector.create`.
        after: Only what came after the entry of this id.
        limit: At most so many, up to 200.
    """
    query = present(subject=subject, action=action, after=after, limit=limit)
    return fetched("/audit", AuditPage, query)
