import pytest
from sqlalchemy import select

from app.core.errors import InvalidInputError
from app.library.pages import Page, read_page
from app.library.records import VectorRecord
from app.library.tables import VectorRow
from tests.fakes.records import vector_record

pytestmark = pytest.mark.anyio

RECORDS = [vector_record() for _ in range(3)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def page(
    found: list[VectorRecord], *, limit: int = 2, cursor: str | None = None
) -> Page[VectorRecord]:
    async def read(_query: object) -> list[VectorRecord]:
        return found

    return await read_page(read, select(VectorRow), of=VectorRow.id, limit=limit, cursor=cursor)


async def test_a_full_page_leads_on_only_when_there_is_more() -> None:
    more = await page(RECORDS)
    assert more.items == tuple(RECORDS[:2])
    assert more.next_cursor is not None
    assert more.next_cursor.isascii()
    assert (await page(RECORDS[:2])).next_cursor is None
    assert (await page([], cursor=more.next_cursor)).items == ()


@pytest.mark.parametrize("cursor", ["", "x", "é", "a" * 100, "!!!!", "\0"])
async def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError):
        await page(RECORDS, cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 201, 10**9])
async def test_a_limit_out_of_bounds_is_refused(limit: int) -> None:
    assert (await page(RECORDS, limit=200)).next_cursor is None
    with pytest.raises(InvalidInputError):
        await page(RECORDS, limit=limit)
