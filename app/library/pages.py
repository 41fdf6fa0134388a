"""Pages of records, newest first, by a cursor that does not drift when rows are added."""

import base64
import binascii
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

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


async def read_page(
    read: Callable[[Any], Awaitable[Sequence[Listed]]],
    query: Select[*tuple[Any, ...]],
    *,
    of: InstrumentedAttribute[uuid.UUID],
    limit: int,
    cursor: str | None,
    bound_to: bytes = b"",
) -> Page[Listed]:
    """At most `limit` of a query's records, of which `of` is the id, behind those of a cursor.

    A cursor goes on only with a listing that was narrowed by what has the digest `bound_to`.

    Raises:
        InvalidInputError: The limit is out of bounds, or the cursor none of ours or of another
            listing.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError(f"A limit is between 1 and {MAX_LIMIT}, found {limit}")
    binding = bound_to[:_BINDING_BYTES]
    if cursor is not None:
        query = query.where(of < _last_of(cursor, binding))
    records = await read(query.order_by(of.desc()).limit(limit + 1))
    items = tuple(records[:limit])
    if len(records) <= limit:
        return Page(items, None)
    data = base64.urlsafe_b64encode(items[-1].id.bytes + binding)
    return Page(items, data.rstrip(b"=").decode())


def _last_of(cursor: str, binding: bytes) -> uuid.UUID:
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        found = uuid.UUID(bytes=data[:_ID_BYTES])
    except (binascii.Error, ValueError):
        raise InvalidInputError("The cursor is not one of ours") from None
    if data[_ID_BYTES:] != binding:
        raise InvalidInputError(
            "The cursor belongs to a listing with other filters: give the same filters with every "
            "page, or begin without a cursor"
        )
    return found
