"""Keys as callers hold them: `vlib_<id>_<secret>`, and what they allow.

Only a digest of the secret is ever kept. The secret has 256 random bits, so a plain SHA-256 of it
cannot be searched through.
"""

import datetime as dt
import hashlib
import hmac
import re
import secrets
from dataclasses import asdict, dataclass
from typing import Final, Literal, get_args

Scope = Literal["read", "write", "train", "steer", "admin"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
# Of whoever needs no key, and of keys that were made for no other.
DEFAULT_WORKSPACE: Final = "default"
SECRET_BYTES: Final = 32
ID_BYTES: Final = 8
MAX_NAME_CHARACTERS: Final = 100
MAX_QUOTA: Final = 2**53 - 1
MAX_TOKEN_CHARACTERS: Final = 200
_TOKEN: Final = re.compile(r"vlib_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, kw_only=True)
class Token:
    """A key's public id and its secret."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The key as its holder sends it."""
        return f"vlib_{self.id}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """SHA-256 of the secret, 32 bytes."""
        return hashlib.sha256(self.secret.encode("ascii")).digest()

    def is_of(self, digest: bytes) -> bool:
        """Whether the secret is the one of this digest, found out in constant time."""
        return hmac.compare_digest(self.digest, digest)


def new_token() -> Token:
    """A key that nobody has."""
    return Token(id=secrets.token_hex(ID_BYTES), secret=secrets.token_urlsafe(SECRET_BYTES))


def read_token(text: str) -> Token | None:
    """The key in a text, or None when it has not the form of one."""
    found = _TOKEN.fullmatch(text) if len(text) <= MAX_TOKEN_CHARACTERS else None
    return None if found is None else Token(id=found[1], secret=found[2])


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """The most that may be asked for with a key; None where it is not limited.

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

    @property
    def limits_stored(self) -> bool:
        """Whether anything is limited that lies in the database."""
        return (self.jobs, self.bytes, self.vectors) != (None, None, None)

    def within(self, other: "Quotas") -> "Quotas":
        """The tighter limit of both, one by one."""
        limits = asdict(self)
        for name, limit in asdict(other).items():
            if limit is not None and (limits[name] is None or limit < limits[name]):
                limits[name] = limit
        return Quotas(**limits)


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """A key as the library knows it; nothing in it lets anybody in.

    `admin` among the scopes allows everything; `last_used` is to the minute.
    """

    id: str
    name: str
    workspace: str
    scopes: tuple[Scope, ...]
    quotas: Quotas
    created: dt.datetime
    expires: dt.datetime | None
    revoked: dt.datetime | None
    last_used: dt.datetime | None

    def is_valid(self, now: dt.datetime) -> bool:
        """Whether it opens anything at this moment."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def allows(self, scope: Scope) -> bool:
        """Whether it may do what this scope stands for."""
        return scope in self.scopes or "admin" in self.scopes
