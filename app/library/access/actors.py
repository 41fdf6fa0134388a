"""Who acts: the key behind the request at hand, for the audit trail.

A context variable, because the trail is written far below the request and nothing between them has
to know of keys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_ACTOR: Final[ContextVar[str | None]] = ContextVar("actor", default=None)


def current_actor() -> str | None:
    """The id of the key that acts in this context, if one does."""
    return _ACTOR.get()


@contextmanager
def acting(actor: str | None) -> Iterator[None]:
    """What is done in the block is done by this key."""
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)
