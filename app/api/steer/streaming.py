"""From what a caller asks to its response: a stream of items, or a body made of the last ones."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Final, Protocol, TypeAlias, TypeVar

import anyio
from fastapi import Depends, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse
from starlette.types import Receive, Scope
from starlette.types import Send as ASGISend

from app.api.dependencies import Services, ServicesOf
from app.api.http.errors import error_content
from app.api.http.problems import request_id_of
from app.api.schemas.steering import SteerBody, SteerRequest
from app.api.steer.generation import Plan, make_plan, proven_answer
from app.core.backbones import BackboneDescription
from app.core.cancellation import ClientGoneError, Send, run_until_disconnect, sent_by
from app.core.telemetry.logs import get_logger
from app.rpc.generation import GenerateDelta, GenerateResponse
from app.rpc.messages import GenerateRequest

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


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """What came of one of the answers that were asked for, or at its end that answer in full.

    `index` is the answer's, `backbone` the fingerprint of the one that answers, and `offset` where
    the chunk's text begins in that of the answer.
    """

    index: int
    chunk: GenerateDelta | SteerBody
    backbone: str
    is_first: bool
    offset: int


class AnswerWriter(Protocol[Body_co]):
    """Writes answers to one request in the words of one API, whole or as a stream of events."""

    def whole(self, answers: Sequence[SteerBody]) -> Body_co:
        """The body of all answers."""

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        """The events of an item; all of them are given, in order."""

    def end(self, answers: Sequence[SteerBody]) -> Iterable[bytes]:
        """The events after those of all items."""

    def error(self, content: str) -> bytes:
        """The event that tells of an error with this body; it is the last one."""


class AnswerStream(EventSourceResponse):
    """Sends events, and closes their generator however the sending ends.

    The generator watches the client and the deadline itself. A client that stays connected and
    reads nothing is given up soon after the deadline; the server's socket ends its connection.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], *, headers: dict[str, str], deadline: float
    ) -> None:
        super().__init__(events, headers={**UNTOUCHED, **headers})
        self._events = events
        self._deadline = deadline

    async def __call__(self, _scope: Scope, _receive: Receive, send: ASGISend) -> None:
        """Sends the response."""
        left = self._deadline - time.monotonic() + SEND_SLACK_SECONDS
        async with aclosing(self._events):
            try:
                async with asyncio.timeout(left):
                    await self.stream_response(send)
            except TimeoutError:
                log.warning("client does not read its answer")


# What a route documents that answers with events as well.
EVENTS: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {AnswerStream.media_type: {}}}}


async def answer_events(
    source: AsyncGenerator[ChoiceItem | None, None],
    *,
    request: Request,
    writer: AnswerWriter[object],
) -> AsyncGenerator[bytes, None]:
    """The events of all items, a comment for each long pause, and an event for an error.

    The first chunk is empty and comes with the first item: what fails before that is raised, since
    the response has not begun.
    """
    answers: dict[int, SteerBody] = {}
    async with aclosing(source):
        item = await anext(source)
        yield b""
        try:
            with suppress(StopAsyncIteration):
                while True:
                    for event in (KEEPALIVE_COMMENT,) if item is None else writer.events(item):
                        yield event
                    if item is not None and isinstance(item.chunk, SteerBody):
                        answers[item.index] = item.chunk
                    item = await anext(source)
            for event in writer.end([answers[index] for index in sorted(answers)]):
                yield event
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - the response has begun, so no handler can answer
            yield writer.error(error_content(request, error))


@dataclass(kw_only=True, eq=False)
class Responder:
    """Makes the answers to one request into its response."""

    services: Services
    request: Request
    response: Response
    # What the response tells of the vectors, filled before anything is sent.
    _headers: dict[str, str] = field(default_factory=dict)

    async def respond(
        self,
        bodies: Sequence[SteerRequest],
        writer: AnswerWriter[Body_co],
        *,
        backbones: Sequence[BackboneDescription] = (),
        count: int = 1,
    ) -> Body_co | AnswerStream:
        """The answers as the first body asks for them: a stream, or a body made of the ends of all.

        One of the backbones answers, or any that fits where none are given. Each of the requests is
        answered `count` times, drawn with seeds of their own; indices are in order.

        Raises:
            DeadlineExceededError: The time is over.
            SteeringError: Vectors could not be shown to have been applied.
            VLibraryError: It cannot be answered.
        """
        ask = partial(self._send_answers, bodies, backbones=backbones, count=count)
        if bodies[0].stream:
            return await self._start_stream(ask, writer)
        answers: dict[int, SteerBody] = {}

        async def keep(item: ChoiceItem) -> None:
            if isinstance(item.chunk, SteerBody):
                answers[item.index] = item.chunk

        await ask(keep)
        self.response.headers.update(self._headers)
        return writer.whole([answers[index] for index in sorted(answers)])

    async def _start_stream(
        self,
        ask: Callable[[Send[ChoiceItem]], Coroutine[Any, Any, None]],
        writer: AnswerWriter[object],
    ) -> AnswerStream:
        """The stream, as soon as its first item is there or the client has waited for long.

        What fails before is raised here. Proxies take a silent connection for dead, so a response
        that keeps its client waiting begins without an item; the waiting counts from when the
        request was read.
        """
        settings = self.services.settings
        deadline = time.monotonic() + settings.request_timeout_seconds
        source = sent_by(
            ask,
            silence_seconds=settings.silence_seconds,
            silent_for=time.monotonic() - self.request.state.read_at,
        )
        events = answer_events(source, request=self.request, writer=writer)
        await anext(events)
        return AnswerStream(events, headers=self._headers, deadline=deadline)

    async def _send_answers(
        self,
        bodies: Sequence[SteerRequest],
        send: Send[ChoiceItem],
        *,
        backbones: Sequence[BackboneDescription],
        count: int,
    ) -> None:
        """Sends what comes of the answers, each of them in full at its end."""
        seconds = self.services.settings.request_timeout_seconds
        deadline = time.monotonic() + seconds

        async def answer() -> None:
            plans = [
                await make_plan(
                    body,
                    services=self.services,
                    request_id=request_id_of(self.request),
                    backbones=backbones,
                    deadline=deadline,
                )
                for body in bodies
            ]
            # Retrieval may find something else for each.
            if all(plan.headers() == plans[0].headers() for plan in plans):
                self._headers.update(plans[0].headers())
            requests = [(plan, one) for plan in plans for one in plan.requests(count)]
            first, *rest = [
                partial(self._send_items, plan, one, index=index, send=send)
                for index, (plan, one) in enumerate(requests)
            ]
            async with anyio.create_task_group() as group:
                for send_one in rest:
                    group.start_soon(send_one)
                # In this task: what ends it reaches the worker without a detour.
                await first()

        await run_until_disconnect(answer(), receive=self.request.receive, seconds=seconds)

    async def _send_items(
        self, plan: Plan, request: GenerateRequest, *, index: int, send: Send[ChoiceItem]
    ) -> None:
        backbone = plan.backbone.fingerprint
        chunks = self.services.workers.generate(request, backbone_fingerprint=backbone)
        is_first, offset = True, 0
        async with aclosing(chunks):
            async for chunk in chunks:
                shown = proven_answer(plan, chunk) if isinstance(chunk, GenerateResponse) else chunk
                item = ChoiceItem(
                    index=index, chunk=shown, backbone=backbone, is_first=is_first, offset=offset
                )
                await send(item)
                is_first, offset = False, offset + len(chunk.text)


async def responder_of(services: ServicesOf, request: Request, response: Response) -> Responder:
    """Who answers this request."""
    return Responder(services=services, request=request, response=response)


ResponderOf: TypeAlias = Annotated[Responder, Depends(responder_of)]
