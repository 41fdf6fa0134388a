"""Answers piece by piece, from what a caller asks to what a stream is made of.

Knows no route and no shape of an event.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from fastapi import Request

from app.api.dependencies import Services
from app.api.http.cancellation import iterate_until_disconnect, merged
from app.api.http.problems import request_id_of
from app.api.schemas.steering import SteerBody, SteerRequest
from app.api.steer.generation import Plan, make_plan, proven_answer
from app.rpc.generation import GenerateDelta, GenerateResponse
from app.rpc.messages import GenerateRequest

# A proxy that waits for exactly as long as the setting must not be faster.
PROMPTNESS: Final = 0.9

StreamItem: TypeAlias = GenerateDelta | SteerBody
"""What came of an answer, or at its end the answer in full."""


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """A piece of one of the answers that were asked for, by the answer's place."""

    place: int
    piece: StreamItem


@dataclass(frozen=True, kw_only=True)
class StartedAnswer:
    """An answer of which something has come, or for which the client has waited long enough.

    Attributes:
        headers: What is known of the vectors by now.
        items: Pieces, with each answer in full at its end, and None when nothing came for a while.
        source: Where they come from; whoever holds this closes it, also when no further item was
            asked for.
        deadline: When all must be complete, on the clock of `time.monotonic`.
    """

    headers: dict[str, str]
    items: AsyncGenerator[ChoiceItem | None, None]
    source: AsyncGenerator[Plan | ChoiceItem | None, None]
    deadline: float


async def start_answer(
    body: SteerRequest,
    *,
    services: Services,
    request: Request,
    backbone: str | None = None,
    count: int = 1,
) -> StartedAnswer:
    """The answer once its first piece is there, or has been waited for long: see `answer_whole`.

    What fails before does so here. Proxies take a connection for dead on which nothing is said, so
    the response of whoever waits longer begins without a piece.
    """
    settings = services.settings
    deadline = time.monotonic() + settings.request_timeout_seconds
    source = iterate_until_disconnect(
        _plan_and_items(body, services=services, request=request, backbone=backbone, count=count),
        request=request,
        deadline=deadline,
        silence_seconds=PROMPTNESS * settings.early_stream_seconds,
    )
    headers: dict[str, str] = {}
    first = await anext(source)
    if isinstance(first, Plan):
        headers = first.headers()
        first = await anext(source)
    items = _items(first, source)
    return StartedAnswer(headers=headers, items=items, source=source, deadline=deadline)


async def _plan_and_items(
    body: SteerRequest, *, services: Services, request: Request, backbone: str | None, count: int
) -> AsyncGenerator[Plan | ChoiceItem, None]:
    plan = await make_plan(
        body, services=services, request_id=request_id_of(request), backbone=backbone
    )
    yield plan
    first, *others = [_pieces(plan, one, services=services) for one in plan.requests(count)]
    if others:
        async with aclosing(merged([first, *others])) as pieces:
            async for place, piece in pieces:
                yield ChoiceItem(place=place, piece=piece)
        return
    async with aclosing(first):
        async for piece in first:
            yield ChoiceItem(place=0, piece=piece)


async def _pieces(
    plan: Plan, request: GenerateRequest, *, services: Services
) -> AsyncGenerator[StreamItem, None]:
    pieces = services.workers.stream(request, backbone_fingerprint=plan.backbone.fingerprint)
    async with aclosing(pieces):
        async for piece in pieces:
            yield proven_answer(plan, piece) if isinstance(piece, GenerateResponse) else piece


async def _items(
    first: Plan | ChoiceItem | None, rest: AsyncGenerator[Plan | ChoiceItem | None, None]
) -> AsyncGenerator[ChoiceItem | None, None]:
    """The items alone; what was known of the vectors too late for the headers is in the answer."""
    if not isinstance(first, Plan):
        yield first
    async for item in rest:
        if not isinstance(item, Plan):
            yield item
