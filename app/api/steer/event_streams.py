"""From a started answer to its response, whole or as server-sent events."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol, TypeVar

from fastapi import Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from app.api.dependencies import Services
from app.api.http.errors import error_content
from app.api.schemas.steering import SteerBody, SteerRequest
from app.api.steer.streaming import ChoiceItem, StartedAnswer, start_answer
from app.core.cancellation import ClientGoneError
from app.core.telemetry.logs import get_logger

SEND_SLACK_SECONDS: Final = 30.0
# Proxies must neither collect nor compress events. Not all of them heed the words for that, and
# some collect what they compress, but none compresses what has an encoding.
UNTOUCHED: Final = {
    "x-accel-buffering": "no",
    "cache-control": "no-cache, no-transform",
    "content-encoding": "identity",
}

Body_co = TypeVar("Body_co", covariant=True)

log = get_logger(__name__)


class AnswerWriter(Protocol[Body_co]):
    """Writes answers to one request in the words of one API; a stream takes one item at a time."""

    @property
    def error_event(self) -> str | None:
        """The kind of event that tells of an error; None where events have no kinds."""

    def whole(self, answers: Sequence[SteerBody]) -> Body_co:
        """The body of all answers."""

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; all of them are given, in order."""


async def make_response(
    asked: SteerRequest,
    writer: AnswerWriter[Body_co],
    *,
    services: Services,
    request: Request,
    response: Response,
    backbones: Sequence[str] = (),
    count: int = 1,
    others: Sequence[SteerRequest] = (),
) -> "Body_co | AnswerStream":
    """The answers as they were asked for: a stream, or a body made of the ends of all streams.

    One of the backbones answers, by their fingerprints, or any that fits where none are given. Each
    of the requests, the others as well, is answered `count` times.

    Raises:
        VLibraryError: It cannot be answered: see `start_answer`.
    """
    started = await start_answer(
        asked,
        services=services,
        request=request,
        backbones=backbones,
        count=count,
        others=others,
    )
    if asked.stream:
        return AnswerStream(started, answer_events(started, request=request, writer=writer))
    answers: dict[int, SteerBody] = {}
    async with aclosing(started.source), aclosing(started.items) as items:
        async for item in items:
            if item is not None and isinstance(item.piece, SteerBody):
                answers[item.place] = item.piece
    response.headers.update(started.headers)
    return writer.whole([answers[place] for place in sorted(answers)])


class AnswerStream(EventSourceResponse):
    """Sends events and closes their source, whoever ends it.

    The events watch the client and the deadline themselves. For a client that stays and reads
    nothing it ends soon after the deadline; the connection is ended by who made the socket.
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
    started: StartedAnswer, *, request: Request, writer: AnswerWriter[object]
) -> AsyncGenerator[bytes, None]:
    """The events of an answer's items, a comment in long pauses, and an event for an error."""
    items = started.items
    async with aclosing(items):
        try:
            async for item in items:
                if item is None:
                    yield KEEPALIVE_COMMENT
                else:
                    for event in writer.events(item):
                        yield event
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - the response has begun, so no handler can answer
            content = error_content(request, error)
            yield format_sse_event(event=writer.error_event, data_str=content.decode())
