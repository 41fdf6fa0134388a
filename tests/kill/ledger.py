"""What a client knows about its writes: which were acknowledged, and which may have happened."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

ABSENT: Final = "absent"
Thing: TypeAlias = tuple[str, str]


class Ledger:
    """The state that every thing must be in, as far as its only writer knows; for several threads.

    A write that was not acknowledged may have happened or not, until the next one that was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Thing, str] = {}
        self._maybe: dict[Thing, set[str]] = {}

    @contextmanager
    def write(self, thing: Thing, value: str) -> Iterator[Callable[[], None]]:
        """Notes a write for the block, which calls what it is given when it is acknowledged."""
        with self._lock:
            self._maybe.setdefault(thing, set()).add(value)

        def acknowledge() -> None:
            with self._lock:
                self._known[thing] = value
                self._maybe[thing] = set()

        yield acknowledge

    def settle(self, thing: Thing, value: str) -> None:
        """Notes what an acknowledged write says of another thing."""
        with self.write(thing, value) as acknowledge:
            acknowledge()

    def things(self) -> list[Thing]:
        """Everything of which a write was acknowledged, the oldest first."""
        with self._lock:
            return list(self._known)

    def allowed(self, thing: Thing) -> set[str]:
        """The states that it may be in."""
        with self._lock:
            return {self._known.get(thing, ABSENT), *self._maybe.get(thing, ())}
