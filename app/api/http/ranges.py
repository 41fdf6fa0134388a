"""Downloads that go on where they were lost."""

import re
from typing import Final

from starlette.datastructures import Headers

_REST: Final = re.compile(r"bytes=(\d{1,18})-")


def rest_from(headers: Headers, *, etag: str, size: int) -> int:
    """Where the part that is wanted begins; 0 for the whole.

    Only the rest of the same file is sent by itself: every server may answer another range, or one
    of an older file, with the whole.

    Source: RFC 9110, sections 13.1.5 and 14.2.
    """
    found = _REST.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return 0
    start = int(found[1])
    return start if start < size else 0
