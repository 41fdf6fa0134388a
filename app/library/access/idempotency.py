"""Requests that carry a key of their own, and how they were answered: none is done twice.

The answer is stored in the transaction that does what was asked, so a crash leaves both or neither.
"""

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import ConflictError, InProgressError, InvalidInputError
from app.library.access.access_tables import AnsweredRequestRow
from app.library.database import lock_number
from app.library.records import record_of

KEPT: Final = dt.timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class RequestKey:
    """One request, whoever repeats it.

    `owner` is the key of the api that asks, empty where none is needed, `text` what the caller
    calls the request, and `digest` (32 bytes) that of all that was asked.
    """

    owner: str
    text: str
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """How a request was answered."""

    status: int
    location: str | None
    body: Any


async def find_answer(session: AsyncSession, key: RequestKey) -> StoredAnswer | None:
    """How the request was answered in the last 24 hours; None leaves it to this transaction alone.

    Until the session's transaction ends, nobody else may do what was asked.

    Raises:
        InProgressError: Another transaction is doing it.
        InvalidInputError: The key was used for something else.
        ConflictError: It was done, and its answer is not shown again.
    """
    lock = lock_number(f"{key.owner}\0{key.text}")
    if not await session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise InProgressError("A request with this Idempotency-Key is being answered just now")
    # Those of other requests would be locked until this one ends: see `forget_answers`.
    own = AnsweredRequestRow.owner == key.owner, AnsweredRequestRow.text == key.text
    await session.execute(delete(AnsweredRequestRow).where(*own, _is_old()))
    found = await session.get(AnsweredRequestRow, (key.owner, key.text))
    if found is None:
        return None
    if found.digest != key.digest:
        raise InvalidInputError(
            "This Idempotency-Key was used for another request in the last 24 hours; "
            "wanted the same request, or another key"
        )
    if found.body is None:
        raise ConflictError(
            "This request was answered before, and its answer is shown only once; revoke what it "
            "made, and ask again with another Idempotency-Key"
        )
    return record_of(StoredAnswer, found)


async def store_answer(
    session: AsyncSession, key: RequestKey, answer: StoredAnswer, *, is_secret: bool = False
) -> None:
    """Keeps an answer for 24 hours; of a secret one only that it was given."""
    kept = replace(answer, body=None) if is_secret else answer
    session.add(AnsweredRequestRow(**vars(key), **vars(kept)))
    await session.flush()


async def forget_answers(session: AsyncSession) -> None:
    """Drops all answers that are older than 24 hours."""
    gone = delete(AnsweredRequestRow).where(_is_old())
    # No session has them, which would otherwise be sent every key.
    await session.execute(gone, execution_options={"synchronize_session": False})


def _is_old() -> ColumnElement[bool]:
    return AnsweredRequestRow.created < func.clock_timestamp() - KEPT
