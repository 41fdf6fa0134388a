"""Which vectors are listed: typed filters that combine, and pages that belong to them."""

import datetime as dt
import hashlib
import uuid
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import ColumnElement, ScalarSelect, SQLColumnExpression, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import InvalidInputError
from app.library.pages import Page, read_page
from app.library.records import VectorRecord
from app.library.tables import AliasRow, EvaluationRow, VectorRow
from app.library.vector_rows import VECTOR_ROWS, read_vectors
from app.library.vectors import check_status

MAX_WORDS: Final = 16


@dataclass(frozen=True, kw_only=True)
class VectorFilters:
    """What a listed vector must be; all that is given must hold.

    Each word of `text` occurs, in any case, in the name, the description or a tag. What was stored
    at the moment `created_after` itself is listed, at `created_before` not. Accuracy and gain above
    zero-shot are of the newest measurement that has them.
    """

    name: str | None = None
    text: str | None = None
    tags: tuple[str, ...] = ()
    alias: str | None = None
    backbone: str | None = None
    status: str | None = None
    method: str | None = None
    dataset_sha256: str | None = None
    job_id: uuid.UUID | None = None
    parent: uuid.UUID | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    min_accuracy: float | None = None
    min_gain: float | None = None

    def digest(self) -> bytes:
        """The same for equal filters; what a cursor is bound to."""
        fields = asdict(replace(self, tags=tuple(sorted(set(self.tags)))))
        return hashlib.sha256(repr(sorted(fields.items())).encode()).digest()


def _conditions(filters: VectorFilters) -> list[ColumnElement[bool]]:
    if filters.status is not None:
        check_status(filters.status)
    equal = {
        VectorRow.name: filters.name,
        VectorRow.backbone_fingerprint: filters.backbone,
        VectorRow.status: filters.status,
        VectorRow.method: filters.method,
        VectorRow.dataset_sha256: filters.dataset_sha256,
        VectorRow.job_id: filters.job_id,
    }
    wanted = [column == value for column, value in equal.items() if value is not None]
    if filters.tags:
        wanted.append(VectorRow.tags.contains(list(filters.tags)))
    if filters.parent is not None:
        wanted.append(VectorRow.parents.contains([filters.parent]))
    if filters.created_after is not None:
        wanted.append(VectorRow.created >= filters.created_after)
    if filters.created_before is not None:
        wanted.append(VectorRow.created < filters.created_before)
    if filters.alias is not None:
        called = select(AliasRow.vector_id).where(AliasRow.alias == filters.alias)
        wanted.append(VectorRow.id.in_(called))
    return [*wanted, *_of_text(filters.text), *_of_measurements(filters)]


def _of_text(text: str | None) -> list[ColumnElement[bool]]:
    words = [] if text is None else text.split()
    if len(words) > MAX_WORDS:
        raise InvalidInputError(f"At most {MAX_WORDS} words are searched, found {len(words)}")
    tags = func.array_to_string(VectorRow.tags, "\n")
    places = (VectorRow.name, VectorRow.description, tags)
    patterns = map(_in_any_case, words)
    return [or_(*(place.regexp_match(pattern) for place in places)) for pattern in patterns]


def _in_any_case(word: str) -> str:
    """The word as a regular expression: which letters belong together no locale has to know."""
    cases = ((sign, sign.lower(), sign.upper()) for sign in word)
    codes = ("".join(rf"\U{ord(one):08x}" for one in same if len(one) == 1) for same in cases)
    return "".join(f"[{code}]" for code in codes)


def _of_measurements(filters: VectorFilters) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if filters.min_accuracy is not None:
        wanted.append(_newest(EvaluationRow.accuracy) >= filters.min_accuracy)
    if filters.min_gain is not None:
        gain = EvaluationRow.accuracy - EvaluationRow.zero_shot
        wanted.append(_newest(gain) >= filters.min_gain)
    return wanted


def _newest(value: SQLColumnExpression[float]) -> ScalarSelect[float]:
    """The value in a vector's newest measurement that has one."""
    return (
        select(value)
        .where(EvaluationRow.vector_id == VectorRow.id, value.is_not(None))
        .order_by(EvaluationRow.id.desc())
        .limit(1)
        .correlate(VectorRow)
        .scalar_subquery()
    )


async def matching_ids(session: AsyncSession, filters: VectorFilters) -> frozenset[uuid.UUID]:
    """The ids of all vectors that match and are not deleted."""
    query = select(VectorRow.id).where(VectorRow.deleted.is_(None), *_conditions(filters))
    return frozenset(await session.scalars(query))


async def list_vectors(
    session: AsyncSession,
    filters: VectorFilters | None = None,
    *,
    limit: int = 50,
    cursor: str | None = None,
) -> Page[VectorRecord]:
    """Vectors that are not deleted, newest first.

    A page has 1 to 200; a cursor belongs to the filters of the page that it ended.

    Raises:
        InvalidInputError: The limit, a filter or the cursor is malformed, or the cursor belongs to
            other filters.
    """
    filters = filters or VectorFilters()
    query = VECTOR_ROWS.where(VectorRow.deleted.is_(None), *_conditions(filters))
    return await read_page(
        partial(read_vectors, session),
        query,
        of=VectorRow.id,
        limit=limit,
        cursor=cursor,
        bound_to=filters.digest(),
    )
