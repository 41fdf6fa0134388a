"""Responses that are server-sent events about one answer; knows no shape of an event."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from app.api.http.errors import ClientGoneError, error_content
from app.api.steer.streaming import ChoiceItem, StartedAnswer
from app.core.logs import get_logger

SEND_SLACK_SECONDS: Final = 30.0
# Proxies must neither collect nor compress events. Not all of them heed the words for that, and
# some collect what they compress, but none compresses what has an encoding.
UNTOUCHED: Final = {
    "x-accel-buffering": "no",
    "cache-control": "no-cache, no-transform",
    "content-encoding": "identity",
}

log = get_logger(__name__)


class AnswerStream(EventSourceResponse):
    """Sends events and closes their source, whoever ends it.

    The events watch the client and the deadline themselves. For a client that stays and reads
    nothing it ends soon after the deadline; the connection is ended by who made the socket.

    Args:
        started: Whose source is closed at the end.
        events: The answer in the wire format.
    """

    def __init__(self, started: StartedAnswer, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, headers={**UNTOUCHED, **started.headers})
        self._started = started
        self._events = events

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Sends the response."""
        left = self._started.deadline - time.monotonic() + SEND_SLACK_SECONDS
        # Events that nobody asked for cannot close what they come from.
        async with aclosing(self._started.source), aclosing(self._events):
            try:
                async with asyncio.timeout(left):
                    await self.stream_response(send)
            except TimeoutError:
                log.warning("client does not read its answer")


# What a route documents that answers with events as well.
EVENTS: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {AnswerStream.media_type: {}}}}


async def answer_events(
    started: StartedAnswer,
    *,
    request: Request,
    render: Callable[[ChoiceItem], Iterator[bytes]],
    error_event: str | None,
) -> AsyncGenerator[bytes, None]:
    """The events of an answer's items, a comment in long pauses, and an event for an error.

    Args:
        started: The answer.
        request: Whose answer it is.
        render: The events of an item.
        error_event: The kind of event that tells of an error.
    """
    items = started.items
    async with aclosing(items):
        try:
            async for item in items:
                if item is None:
                    yield KEEPALIVE_COMMENT
                else:
                    for event in render(item):
                        yield event
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - the response has begun, so no handler can answer
            content = error_content(request, error)
            yield format_sse_event(event=error_event, data_str=content.decode())
