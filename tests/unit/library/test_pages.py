import uuid

import pytest

from app.core.errors import InvalidInputError
from app.library.pages import check_limit, decode_cursor, encode_cursor, make_page
from tests.fakes.records import vector_record


def test_a_cursor_reads_back() -> None:
    one = uuid.uuid4()
    assert decode_cursor(encode_cursor(one)) == one
    assert encode_cursor(one).isascii()


@pytest.mark.parametrize("cursor", ["", "x", "é", "a" * 100, "!!!!", "\0"])
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError):
        decode_cursor(cursor)


def test_a_full_page_leads_on_only_when_there_is_more() -> None:
    records = [vector_record() for _ in range(3)]
    more = make_page(records, limit=2)
    assert more.items == tuple(records[:2])
    assert more.next_cursor == encode_cursor(records[1].id)
    assert make_page(records[:2], limit=2).next_cursor is None
    assert make_page(records[:0], limit=2).items == ()


@pytest.mark.parametrize("limit", [0, -1, 201, 10**9])
def test_a_limit_out_of_bounds_is_refused(limit: int) -> None:
    assert check_limit(200) == 200
    with pytest.raises(InvalidInputError):
        check_limit(limit)
