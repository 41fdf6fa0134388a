"""Bounds what is in flight, before any body is read or any image is decoded."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.core.errors import BusyError

MIN_RETRY_AFTER_SECONDS: Final = 1
MAX_RETRY_AFTER_SECONDS: Final = 30
BODY_TIMEOUT_SECONDS: Final = 30.0
_SMOOTHING: Final = 0.2


class Admission:
    """A count and a weight of the requests in flight; one event loop only.

    Args:
        max_requests: Requests that may be in flight together.
        max_bytes: Bytes of bodies that may be in flight together. A single request is always
            let in when nothing else is in flight.
    """

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests = 0
        self._bytes = 0
        self._mean_seconds = 1.0

    @property
    def in_flight(self) -> int:
        """Requests that are in flight."""
        return self._requests

    @contextmanager
    def place(self, *, num_bytes: int = 0) -> Iterator[None]:
        """Holds a place for the block.

        Raises:
            BusyError: All are taken; it says when one is likely to be free.
        """
        is_full = self._requests >= self._max_requests
        is_heavy = self._requests > 0 and self._bytes + num_bytes > self._max_bytes
        if is_full or is_heavy:
            raise BusyError(
                f"{self._requests} requests are in flight, more are not admitted",
                retry_after_seconds=self.retry_after_seconds(),
            )
        self._requests += 1
        self._bytes += num_bytes
        start = time.monotonic()
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= num_bytes
            seconds = time.monotonic() - start
            self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)

    def retry_after_seconds(self) -> int:
        """When a place is likely to be free, from how long requests took lately."""
        seconds = math.ceil(self._mean_seconds / max(1, self._requests))
        return min(max(seconds, MIN_RETRY_AFTER_SECONDS), MAX_RETRY_AFTER_SECONDS)


class AdmittedRoute(APIRoute):
    """A route whose requests need a place in `app.state.services.admission`.

    The place is taken before FastAPI reads the body, which a dependency could not do, and given
    back when the response is sent to its end, however long it is streamed.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler inside a place."""
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            services = request.app.state.services
            num_bytes = _announced_bytes(request, unknown=services.settings.max_body_bytes)
            # FastAPI leaves this stack when the response has been sent, or could not be.
            stack: AsyncExitStack = request.scope["fastapi_inner_astack"]
            stack.enter_context(services.admission.place(num_bytes=num_bytes))
            await _read_body(request)
            return await handler(request)

        return admitted


async def _read_body(request: Request) -> None:
    """Reads the body into the request, so that nobody keeps a place by sending slowly."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            await request.body()
    except TimeoutError:
        raise HTTPException(408) from None


def _announced_bytes(request: Request, *, unknown: int) -> int:
    text = request.headers.get("content-length", "")
    return min(int(text), unknown) if text.isascii() and text.isdigit() else unknown
