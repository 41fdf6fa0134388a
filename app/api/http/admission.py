"""Bounds what is in flight, before any body is read or any image is decoded."""

import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.api.http.access import key_of
from app.api.http.steady_bodies import require_rate
from app.core.errors import BusyError

MIN_RETRY_AFTER_SECONDS: Final = 1
MAX_RETRY_AFTER_SECONDS: Final = 30
# A place is dear: at the rate that any body may come at, a gibibyte would hold it for three days.
PLACE_BYTES_PER_SECOND: Final = 32 * 1024
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


class Admission:
    """A count and a weight of the requests in flight; one event loop only.

    A single request is always let in when nothing else is in flight, however large its body.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_bytes: float = math.inf,
        max_requests_per_caller: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._max_requests_per_caller = max_requests_per_caller
        self._throughput = Throughput(clock=clock)
        self._requests = 0
        self._bytes = 0
        self._callers: Counter[str] = Counter()
        self._rejections: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """Requests that are in flight."""
        return self._requests

    def rejections(self) -> Mapping[str, int]:
        """How many requests were turned away so far, by reason."""
        return dict(self._rejections)

    @contextmanager
    def place(self, *, num_bytes: int = 0, caller: str = "") -> Iterator[None]:
        """Holds a place for the block.

        Raises:
            BusyError: All are taken, or the caller has its share already; it says when one is
                likely to be free.
        """
        if (busy := self._refusal(num_bytes, caller=caller)) is not None:
            raise busy
        self._requests += 1
        self._bytes += num_bytes
        self._callers[caller] += 1
        self._throughput.begin()
        try:
            yield
        finally:
            self._throughput.end()
            self._requests -= 1
            self._bytes -= num_bytes
            self._callers[caller] -= 1
            if not self._callers[caller]:
                # An entry for everyone who ever called would grow for ever.
                del self._callers[caller]

    def _refusal(self, num_bytes: int, *, caller: str) -> BusyError | None:
        found, own, share = self._requests, self._callers[caller], self._max_requests_per_caller
        if share is not None and own >= share:
            reason, message = "caller", f"{own} requests of this caller are in flight, more"
        elif found >= self._max_requests:
            reason, message = "full", f"{found} requests are in flight, more"
        elif found > 0 and self._bytes + num_bytes > self._max_bytes:
            reason = "bytes"
            message = f"{self._bytes} bytes of bodies are in flight, {num_bytes} more"
        else:
            return None
        self._rejections[reason] += 1
        # Of all that end, every so many-th is one of this caller's.
        num_to_end = found / own if reason == "caller" else self._num_to_end(num_bytes)
        seconds = math.ceil(num_to_end / self._throughput.per_second())
        return BusyError(
            f"{message} are not admitted",
            details={"reason": reason},
            retry_after_seconds=min(max(seconds, MIN_RETRY_AFTER_SECONDS), MAX_RETRY_AFTER_SECONDS),
        )

    def _num_to_end(self, num_bytes: int) -> int:
        """How many must end before there is room."""
        surplus_requests = self._requests + 1 - self._max_requests
        surplus_bytes = min(self._bytes, max(0, self._bytes + num_bytes - self._max_bytes))
        mean_bytes = self._bytes / max(1, self._requests)
        surplus = math.ceil(surplus_bytes / mean_bytes) if mean_bytes else 0
        return max(1, surplus_requests, surplus)


class AdmittedRoute(APIRoute):
    """A route whose requests need a place in `app.state.services.admission`.

    The place is taken before FastAPI reads the body, which a dependency could not do, and given
    back when the response is sent to its end, however long it is streamed. When the body was read,
    on the clock of `time.monotonic`, is `read_at` in the request's state.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler inside a place."""
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            services = request.app.state.services
            place = services.admission.place(
                num_bytes=_announced_bytes(request, unknown=services.settings.max_body_bytes),
                caller=caller_of(request),
            )
            # FastAPI leaves this stack when the response has been sent, or could not be.
            stack: AsyncExitStack = request.scope["fastapi_inner_astack"]
            stack.enter_context(place)
            # Nobody keeps a place by sending slowly.
            require_rate(request, bytes_per_second=PLACE_BYTES_PER_SECOND)
            await request.body()
            request.scope.setdefault("state", {})["read_at"] = time.monotonic()
            return await handler(request)

        return admitted


def caller_of(request: Request) -> str:
    """Who calls: the key that was verified, or else the peer's address."""
    if (key := key_of(request)) is not None:
        return f"key {key.id}"
    return request.client.host if request.client else ""


def _announced_bytes(request: Request, *, unknown: int) -> int:
    text = request.headers.get("content-length", "")
    return min(int(text), unknown) if text.isascii() and text.isdigit() else unknown
