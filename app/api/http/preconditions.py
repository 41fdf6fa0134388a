"""What is asked of an ETag: where an alias must point, and which file a download goes on with."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import Header, HTTPException
from starlette.datastructures import Headers

from app.core.errors import ConflictError, InvalidInputError

_REST: Final = re.compile(r"bytes=(\d{1,18})-")

EntityTag = Annotated[
    str | None,
    # Proxies that compress make an ETag a weak one, which names the same version.
    Header(
        pattern=r'^(W/)?"[1-9][0-9]{0,9}"$', max_length=14, description="Where it must point now."
    ),
]


def expected_of(
    version: int | None, *, if_match: str | None, if_none_match: str | None = None
) -> int | None:
    """The version that is expected, 0 for none, None where any is welcome.

    Raises:
        InvalidInputError: What was sent contradicts itself.
    """
    tagged = None if if_match is None else int(if_match.removeprefix("W/").strip('"'))
    said = {version, tagged, None if if_none_match is None else 0} - {None}
    if len(said) > 1:
        raise InvalidInputError(
            "Wanted one of If-Match, If-None-Match and expected_version, found several that differ"
        )
    return next(iter(said), None)


@contextmanager
def answered_by_412(*headers: str | None) -> Iterator[None]:
    """Answers a conflict with 412 where one of these headers was sent."""
    try:
        yield
    except ConflictError as error:
        if not any(headers):
            raise
        raise HTTPException(412, error.message) from error


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
