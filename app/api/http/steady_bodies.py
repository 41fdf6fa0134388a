"""A least rate for request bodies, so that slow senders (slowloris) do not hold places.

A timeout between two chunks would not do: one byte now and then keeps it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRACE_SECONDS: Final = 20.0
LEAST_BYTES_PER_SECOND: Final = 4096
EARLY_BYTES: Final = 64 * 1024
_STATE: Final = "steady_body"


class SteadyBodies:
    """Answers 408 to whoever sends a body more slowly than the least rate, after some grace.

    A body may so take at most its length divided by the rate, and the grace.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace_seconds: float = GRACE_SECONDS,
        bytes_per_second: float = LEAST_BYTES_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self._watched = partial(
            _Body, grace_seconds=grace_seconds, bytes_per_second=bytes_per_second, clock=clock
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = self._watched(receive)
        scope.setdefault("state", {})[_STATE] = body
        await self.app(scope, body.next_message, send)


async def wait_for_beginning(request: Request, *, num_bytes: int = EARLY_BYTES) -> None:
    """Returns when so much of the body is there, or all of it; the body is read as ever afterwards.

    Raises:
        HTTPException: 408, it came too slowly.
    """
    await getattr(request.state, _STATE).wait_for(num_bytes)


def require_rate(request: Request, *, bytes_per_second: float) -> None:
    """Sets another least rate for the rest of the body."""
    getattr(request.state, _STATE).bytes_per_second = bytes_per_second


@dataclass(eq=False)
class _Body:
    """The messages of one request, and the time that is left to its sender."""

    receive: Receive
    grace_seconds: float
    bytes_per_second: float
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._left = self.grace_seconds
        self._is_complete = False
        self._early: deque[Message] = deque()

    async def wait_for(self, num_bytes: int) -> None:
        """Returns when so much of the body is there, or all of it."""
        while num_bytes > 0 and not self._is_complete:
            message = await self._receive_steadily()
            self._early.append(message)
            num_bytes -= len(message.get("body", b""))

    async def next_message(self) -> Message:
        """The next message that the app has not received yet."""
        return self._early.popleft() if self._early else await self._receive_steadily()

    async def _receive_steadily(self) -> Message:
        # Only time in which the app waits for the client counts.
        if self._is_complete:
            return await self.receive()
        begin = self.clock()
        try:
            async with asyncio.timeout(max(0.0, self._left)):
                message = await self.receive()
        except TimeoutError:
            raise self._too_slow() from None
        self._left -= self.clock() - begin
        if self._left < 0:
            raise self._too_slow()
        self._left += len(message.get("body", b"")) / self.bytes_per_second
        self._left = min(self._left, self.grace_seconds)
        self._is_complete = not message.get("more_body", False)
        return message

    def _too_slow(self) -> HTTPException:
        self._is_complete = True
        return HTTPException(
            408,
            f"The body came at less than {self.bytes_per_second:g} bytes a second",
            headers={"connection": "close"},
        )
