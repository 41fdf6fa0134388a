"""Bodies that come steadily: whoever sends too slowly is cut off, and frees what he held.

Knows bytes and time; knows no route. A limit on silence alone is kept by one byte now and then.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRACE_SECONDS: Final = 20.0
LEAST_BYTES_PER_SECOND: Final = 4096


class SteadyBodies:
    """Answers 408 to whoever sends a body more slowly than the least rate, after some grace.

    A body may so take at most its length divided by the rate, and the grace.

    Args:
        app: What is behind it.
        grace_seconds: What a sender may lose in all, at the beginning or later.
        bytes_per_second: The least rate.
        clock: Seconds from any start.
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
        self._grace_seconds = grace_seconds
        self._bytes_per_second = bytes_per_second
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        left = self._grace_seconds
        is_complete = False

        async def receive_steadily() -> Message:
            # Only the time in which somebody waits for the sender counts against him.
            nonlocal left, is_complete
            if is_complete:
                return await receive()
            begin = self._clock()
            try:
                async with asyncio.timeout(max(0.0, left)):
                    message = await receive()
            except TimeoutError:
                is_complete = True
                raise HTTPException(408, headers={"connection": "close"}) from None
            left -= self._clock() - begin
            left += len(message.get("body", b"")) / self._bytes_per_second
            left = min(left, self._grace_seconds)
            is_complete = not message.get("more_body", False)
            return message

        await self.app(scope, receive_steadily, send)
