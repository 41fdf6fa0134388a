"""Answers piece by piece, from what a caller asks to what a response is made of."""

import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import anyio
from fastapi import Request

from app.api.dependencies import Services
from app.api.http.problems import request_id_of
from app.api.schemas.steering import SteerBody, SteerRequest
from app.api.steer.generation import Plan, make_plan, proven_answer
from app.core.cancellation import Send, run_until_disconnect, sent_by
from app.rpc.generation import GenerateDelta, GenerateResponse
from app.rpc.messages import GenerateRequest

StreamItem: TypeAlias = GenerateDelta | SteerBody
"""What came of an answer, or at its end the answer in full."""


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """A piece of one of the answers that were asked for, by the answer's place.

    `backbone` is the fingerprint of the one that answers.
    """

    place: int
    piece: StreamItem
    backbone: str


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
    source: AsyncGenerator[ChoiceItem | None, None]
    deadline: float


async def start_answer(
    body: SteerRequest,
    *,
    services: Services,
    request: Request,
    backbones: Sequence[str] = (),
    count: int = 1,
    others: Sequence[SteerRequest] = (),
) -> StartedAnswer:
    """The answer once its first piece is there, or has been waited for long.

    What fails before does so here. Proxies take a connection for dead on which nothing is said, so
    the response of whoever waits longer for a stream begins without a piece. They have waited since
    the request was read.

    Each of several answers is drawn with a seed of its own. The `others` are answered beside it,
    as often each, and their places follow.

    Raises:
        DeadlineExceededError: The time is over.
        SteeringError: Vectors could not be shown to have been applied.
        VLibraryError: It cannot be answered.
    """
    settings = services.settings
    seconds = settings.request_timeout_seconds
    deadline = time.monotonic() + seconds
    headers: dict[str, str] = {}

    async def answer(send: Send[ChoiceItem]) -> None:
        plans = [
            await make_plan(
                one,
                services=services,
                request_id=request_id_of(request),
                backbones=backbones,
                deadline=deadline,
            )
            for one in (body, *others)
        ]
        # Retrieval may find something else for each.
        if all(plan.headers() == plans[0].headers() for plan in plans):
            headers.update(plans[0].headers())
        requests = [(plan, one) for plan in plans for one in plan.requests(count)]
        first, *rest = [
            partial(_send_pieces, plan, one, services, place=place, send=send)
            for place, (plan, one) in enumerate(requests)
        ]
        async with anyio.create_task_group() as group:
            for piece in rest:
                group.start_soon(piece)
            # In this task: what ends it reaches the worker without a detour.
            await first()

    async def watched(send: Send[ChoiceItem]) -> None:
        await run_until_disconnect(answer(send), receive=request.receive, seconds=seconds)

    source = sent_by(
        watched,
        silence_seconds=settings.silence_seconds if body.stream else math.inf,
        silent_for=time.monotonic() - request.state.read_at,
    )
    items = _items(await anext(source), source)
    return StartedAnswer(headers=headers, items=items, source=source, deadline=deadline)


async def _send_pieces(
    plan: Plan,
    request: GenerateRequest,
    services: Services,
    *,
    place: int,
    send: Send[ChoiceItem],
) -> None:
    backbone = plan.backbone.fingerprint
    pieces = services.workers.generate(request, backbone_fingerprint=backbone)
    async with aclosing(pieces):
        async for piece in pieces:
            shown = proven_answer(plan, piece) if isinstance(piece, GenerateResponse) else piece
            await send(ChoiceItem(place=place, piece=shown, backbone=backbone))


async def _items(
    first: ChoiceItem | None, rest: AsyncGenerator[ChoiceItem | None, None]
) -> AsyncGenerator[ChoiceItem | None, None]:
    yield first
    async for item in rest:
        yield item
