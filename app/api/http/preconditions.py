"""Where an alias must point before it is changed, as HTTP says it: the version is the ETag."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Header, HTTPException

from app.core.errors import ConflictError, InvalidInputError

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
