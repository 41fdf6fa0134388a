"""How fast requests end, measured while there are any."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_SECONDS: Final = 60.0
MOST_REMEMBERED: Final = 4096


class Throughput:
    """Requests that end a second, over the last minute in which some were in flight.

    Time in which nothing is in flight does not pass here: a quiet hour says nothing about speed.
    Until there is something to go by, one request a second is taken for granted.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_in_flight = 0
        self._busy_seconds = 0.0
        self._looked = clock()
        self._ends: deque[float] = deque(maxlen=MOST_REMEMBERED)

    def begin(self) -> None:
        """One more is in flight."""
        self._busy_now()
        self._num_in_flight += 1

    def end(self) -> None:
        """One of them has ended."""
        self._ends.append(self._busy_now())
        self._num_in_flight -= 1

    def per_second(self) -> float:
        """How many end a second; more than zero."""
        now = self._busy_now()
        while self._ends and self._ends[0] <= now - WINDOW_SECONDS:
            self._ends.popleft()
        seconds = min(now, WINDOW_SECONDS)
        if len(self._ends) == MOST_REMEMBERED:
            seconds = now - self._ends[0]
        return (len(self._ends) + 1) / (seconds + 1)

    def _busy_now(self) -> float:
        now = self._clock()
        if self._num_in_flight:
            self._busy_seconds += now - self._looked
        self._looked = now
        return self._busy_seconds
