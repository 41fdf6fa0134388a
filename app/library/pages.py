"""Pages of records, newest first, by a cursor that does not drift when rows are added."""

import base64
import binascii
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.core.errors import InvalidInputError
from app.library.records import DatasetRecord, JobRecord, VectorRecord

MAX_LIMIT: Final = 200
_ID_BYTES: Final = 16
_BINDING_BYTES: Final = 8

Record = TypeVar("Record")
Listed = TypeVar("Listed", VectorRecord, DatasetRecord, JobRecord)


@dataclass(frozen=True)
class Page(Generic[Record]):
    """Some records, and the cursor that continues behind them if there are more."""

    items: tuple[Record, ...]
    next_cursor: str | None


def check_limit(limit: int) -> int:
    """The limit itself when it is between 1 and `MAX_LIMIT`.

    Raises:
        InvalidInputError: It is not.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError(f"A limit is between 1 and {MAX_LIMIT}, found {limit}")
    return limit


def encode_cursor(last: uuid.UUID, *, bound_to: bytes = b"") -> str:
    """The cursor that continues behind the record of this id.

    It goes on only with a listing that was narrowed by what has the digest `bound_to`.
    """
    data = last.bytes + bound_to[:_BINDING_BYTES]
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_cursor(cursor: str, *, bound_to: bytes = b"") -> uuid.UUID:
    """The id that a cursor stands for.

    Raises:
        InvalidInputError: It is none of our cursors, or belongs to another listing.
    """
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found = uuid.UUID(bytes=data[:_ID_BYTES])
    except (binascii.Error, ValueError):
        raise InvalidInputError("The cursor is not one of ours") from None
    if data[_ID_BYTES:] != bound_to[:_BINDING_BYTES]:
        raise InvalidInputError(
            "The cursor belongs to a listing with other filters: give the same filters with every "
            "page, or begin without a cursor"
        )
    return found


def make_page(records: Sequence[Listed], *, limit: int, bound_to: bytes = b"") -> Page[Listed]:
    """A page of at most `limit` records out of up to `limit + 1` that were read."""
    items = tuple(records[:limit])
    cursor = encode_cursor(items[-1].id, bound_to=bound_to) if len(records) > limit else None
    return Page(items, cursor)
