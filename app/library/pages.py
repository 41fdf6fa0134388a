"""Pages of records, newest first, by a cursor that does not drift when rows are added."""

import base64
import binascii
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.core.errors import InvalidInputError

MAX_LIMIT: Final = 200

Record = TypeVar("Record")


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


def encode_cursor(last: uuid.UUID) -> str:
    """The cursor that continues behind the record of this id."""
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> uuid.UUID:
    """The id that a cursor stands for.

    Raises:
        InvalidInputError: It is none of our cursors.
    """
    try:
        return uuid.UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (binascii.Error, ValueError):
        raise InvalidInputError("The cursor is not one of ours") from None


def make_page(records: Sequence[Record], ids: Sequence[uuid.UUID], *, limit: int) -> Page[Record]:
    """A page of at most `limit` records out of up to `limit + 1` that were read.

    Args:
        records: What was read, newest first.
        ids: Their ids in the same order.
        limit: How many the caller asked for.
    """
    cursor = encode_cursor(ids[limit - 1]) if len(records) > limit else None
    return Page(tuple(records[:limit]), cursor)
