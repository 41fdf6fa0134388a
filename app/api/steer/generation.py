"""From a request to its answer: what is looked up, what the worker is asked, what it must prove.

Both APIs that generate answer through here, whole or piece by piece. Knows no route and no shape
of an event.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from fastapi import Request

from app.api.dependencies import Services
from app.api.http.cancellation import iterate_until_disconnect, run_until_disconnect
from app.api.http.problems import request_id_of
from app.api.schemas.steering import (
    AppliedBody,
    BackboneNameBody,
    BaselineBody,
    ReceiptBody,
    SteerBody,
    SteerRequest,
    TimingsBody,
    TokenLogprobsBody,
    UsageBody,
)
from app.api.steer.images import ImageLimits, read_images
from app.api.steer.receipts import verify_receipt
from app.api.steer.vector_selection import Choice, choose, find_demonstrations
from app.core.backbones import BackboneDescription
from app.core.errors import InvalidInputError
from app.rpc.backbones import backbone_for
from app.rpc.messages import GenerateDelta, GenerateRequest, GenerateResponse

MAX_DEADLINE_SECONDS: Final = 3600.0
VECTOR_HEADER: Final = "x-vlibrary-vector"

StreamItem: TypeAlias = GenerateDelta | SteerBody
"""What came of an answer, or at its end the answer in full."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with everything looked up that answering it takes."""

    request: GenerateRequest
    choice: Choice
    backbone: BackboneDescription

    def headers(self) -> dict[str, str]:
        """What the response's headers say of the vectors; nothing when there are none."""
        uses = [
            f"{use.record.name}@{use.record.version}:{use.record.sha256}:{use.strength}"
            for use in self.choice.vectors
        ]
        return {VECTOR_HEADER: ",".join(uses)} if uses else {}


@dataclass(frozen=True, kw_only=True)
class StartedAnswer:
    """An answer of which something has come.

    Attributes:
        pieces: Deltas, the answer in full at the end, and None when nothing came for a while.
        source: Where the pieces come from; whoever holds this closes it, also when no further
            piece was asked for.
        deadline: When it must be complete, on the clock of `time.monotonic`.
    """

    plan: Plan
    pieces: AsyncGenerator[StreamItem | None, None]
    source: AsyncGenerator[StreamItem, None]
    deadline: float


async def answer_whole(
    body: SteerRequest, *, services: Services, request: Request, backbone: str | None = None
) -> tuple[Plan, SteerBody]:
    """The complete answer, and the plan it follows.

    Args:
        body: What is asked.
        services: Who answers.
        request: Whose client is watched.
        backbone: The fingerprint of the backbone that shall answer; any that fits when not given.

    Raises:
        DeadlineExceededError: The time is over.
        SteeringError: Vectors could not be shown to have been applied.
        VLibraryError: It cannot be answered.
    """

    async def work() -> tuple[Plan, SteerBody]:
        plan = await make_plan(
            body, services=services, request_id=request_id_of(request), backbone=backbone
        )
        answer = await services.workers.generate(
            plan.request, backbone_fingerprint=plan.backbone.fingerprint
        )
        return plan, proven_answer(plan, answer)

    return await run_until_disconnect(
        work(), request=request, seconds=services.settings.request_timeout_seconds
    )


async def start_answer(
    body: SteerRequest, *, services: Services, request: Request, backbone: str | None = None
) -> StartedAnswer:
    """The answer once its first piece is there: what fails before does so here.

    The arguments and errors are those of `answer_whole`.
    """
    seconds = services.settings.request_timeout_seconds
    deadline = time.monotonic() + seconds

    async def work() -> tuple[Plan, StreamItem, AsyncGenerator[StreamItem, None]]:
        plan = await make_plan(
            body, services=services, request_id=request_id_of(request), backbone=backbone
        )
        source = _proven_pieces(plan, services=services)
        return plan, await anext(source), source

    plan, first, source = await run_until_disconnect(work(), request=request, seconds=seconds)
    pieces = iterate_until_disconnect(_put_back(first, source), request=request, deadline=deadline)
    return StartedAnswer(plan=plan, pieces=pieces, source=source, deadline=deadline)


async def make_plan(
    body: SteerRequest, *, services: Services, request_id: str, backbone: str | None
) -> Plan:
    """Looks up everything that the request names.

    Raises:
        VLibraryError: Something is missing, malformed or does not fit together.
    """
    _check_limits(body, services=services)
    images = await read_images(body.images, limits=ImageLimits.of(services.settings))
    choice = await choose(services, body, images=images, backbone=backbone)
    fingerprints = [use.record.backbone.fingerprint for use in choice.vectors]
    wanted = fingerprints if backbone is None else [backbone, *fingerprints]
    served = backbone_for(wanted, await services.serving.now()).backbone
    request = GenerateRequest(
        request_id=request_id,
        prompt=body.prompt,
        images=images,
        vectors=tuple(use.to_wire() for use in choice.vectors),
        demonstrations=await find_demonstrations(services, body.demonstrations),
        instruction=body.instruction,
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logprobs=body.logprobs,
        seed=body.seed,
        stop=body.stop,
        deadline_seconds=min(services.settings.request_timeout_seconds, MAX_DEADLINE_SECONDS),
        baseline=body.baseline,
    )
    return Plan(request=request, choice=choice, backbone=served)


def _check_limits(body: SteerRequest, *, services: Services) -> None:
    require_tokens(body.max_tokens, limit=services.settings.max_new_tokens_limit)
    if body.baseline and services.settings.policy_vectors:
        raise InvalidInputError(
            "There is no baseline here: the server's policy steers every answer"
        )


def require_tokens(found: int, *, limit: int, field: str = "max_tokens") -> None:
    """Returns when so many tokens may be generated.

    Raises:
        InvalidInputError: They are more than the limit; it names the field that asked for them.
    """
    if found > limit:
        raise InvalidInputError(
            f"At most {limit} tokens are generated, asked for {found}",
            details={"wanted": limit, "found": found, "param": field},
        )


async def _proven_pieces(plan: Plan, *, services: Services) -> AsyncGenerator[StreamItem, None]:
    pieces = services.workers.stream(plan.request, backbone_fingerprint=plan.backbone.fingerprint)
    async with aclosing(pieces):
        async for piece in pieces:
            yield proven_answer(plan, piece) if isinstance(piece, GenerateResponse) else piece


async def _put_back(
    first: StreamItem, rest: AsyncGenerator[StreamItem, None]
) -> AsyncGenerator[StreamItem, None]:
    yield first
    async for piece in rest:
        yield piece


def proven_answer(plan: Plan, answer: GenerateResponse) -> SteerBody:
    """The worker's answer as the caller is told, when its receipt shows what was asked for.

    Raises:
        SteeringError: It does not; the answer must not be given.
    """
    chosen = plan.choice.vectors
    verify_receipt(answer.receipt, asked=chosen, backbone=plan.backbone)
    return SteerBody(
        id=plan.request.request_id,
        text=answer.text,
        finish_reason=answer.finish_reason,
        usage=UsageBody.model_validate(answer.usage),
        applied=tuple(
            AppliedBody(
                id=use.record.id,
                name=use.record.name,
                version=use.record.version,
                sha256=use.record.sha256,
                strength=use.strength,
                source=use.source,
            )
            for use in chosen
        ),
        receipt=ReceiptBody.model_validate(answer.receipt),
        retrieval=plan.choice.retrieval,
        baseline=None if answer.baseline is None else BaselineBody.model_validate(answer.baseline),
        logprobs=None
        if answer.logprobs is None
        else tuple(TokenLogprobsBody.model_validate(item) for item in answer.logprobs),
        timings=TimingsBody.model_validate(answer.timings),
        backbone=BackboneNameBody.model_validate(plan.backbone),
    )
