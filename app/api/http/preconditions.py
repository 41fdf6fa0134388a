"""What is asked of an ETag: where an alias must point, and which file a download goes on with."""

import re
from typing import Annotated, Final

from fastapi import Header, HTTPException
from starlette.datastructures import Headers

from app.core.errors import InvalidInputError

_REST: Final = re.compile(r"bytes=(\d{1,18})-")
_TAG: Final = r'(W/)?"[!#-~]*"'

EntityTags = Annotated[
    str | None,
    Header(
        pattern=rf"^(\*|{_TAG}( *, *{_TAG})*)$",
        max_length=200,
        description="Where it must point now: an ETag, several, or `*` for anywhere at all.",
    ),
]


def require_match(
    found: int,
    what: str,
    *,
    expected: int | None,
    if_match: str | None,
    if_none_match: str | None = None,
) -> None:
    """Returns when an alias is at a version, 0 for none, at which the headers want it.

    Source: RFC 9110, sections 13.1.1 and 13.1.2, but that a weak tag matches too: proxies that
    compress make one of ours, and it names the same version.

    Raises:
        InvalidInputError: The headers contradict each other, or the version that is expected.
        HTTPException: 412; it is elsewhere.
    """

    def is_wanted(version: int) -> bool:
        tags = [] if if_match is None else re.split(" *, *", if_match.replace("W/", ""))
        named = not tags or (version > 0 and ("*" in tags or f'"{version}"' in tags))
        return named and (if_none_match is None or version == 0)

    both = if_match is not None and if_none_match is not None
    if both or (expected is not None and not is_wanted(expected)):
        raise InvalidInputError(
            "Wanted one of If-Match, If-None-Match and expected_version, found several that differ"
        )
    if not is_wanted(found):
        wanted = "0" if if_match is None else if_match.replace('"', "")
        raise HTTPException(412, f"Wanted {what} at version {wanted}, found {found}")


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
