"""From a request to its answer: what is looked up, what the worker is asked, what it must prove.

Both APIs that generate answer through here, whole or streamed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.api.dependencies import Services
from app.api.schemas.steering import (
    AppliedBody,
    AutoRetrievalBody,
    BackboneNameBody,
    SteerBody,
    SteerRequest,
)
from app.api.steer.conversations import conversation_of
from app.api.steer.images import read_images
from app.api.steer.receipts import effect_of, verify_receipt
from app.api.steer.vector_selection import ChosenVector, choose, look_up
from app.core.backbones import BackboneDescription
from app.core.errors import InvalidInputError
from app.rpc.backbones import backbone_for, serving_as
from app.rpc.generation import MAX_SEED, GenerateResponse
from app.rpc.messages import GenerateRequest

MAX_DEADLINE_SECONDS: Final = 3600.0
LEAST_DEADLINE_SECONDS: Final = 0.001
VECTOR_HEADER: Final = "x-vlibrary-vector"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with everything looked up that answering it takes.

    `notes` tell what of it is not looked at.
    """

    request: GenerateRequest
    vectors: tuple[ChosenVector, ...]
    retrieval: AutoRetrievalBody | None
    backbone: BackboneDescription
    notes: tuple[str, ...]

    def headers(self) -> dict[str, str]:
        """What the response's headers say of the vectors; nothing when there are none."""
        uses = [
            f"{use.record.name}@{use.record.version}:{use.record.sha256}:{use.strength}"
            for use in self.vectors
        ]
        return {VECTOR_HEADER: ",".join(uses)} if uses else {}

    def requests(self, count: int) -> tuple[GenerateRequest, ...]:
        """The request so many times, each with a seed of its own."""
        return tuple(
            self.request.model_copy(update={"seed": (self.request.seed + place) % (MAX_SEED + 1)})
            if place
            else self.request
            for place in range(count)
        )


async def make_plan(
    body: SteerRequest,
    *,
    services: Services,
    request_id: str,
    backbones: Sequence[BackboneDescription],
    deadline: float,
) -> Plan:
    """Looks up everything that the request names.

    One of the backbones answers, or any that fits where none are given; the deadline is on the
    clock of `time.monotonic`.
    """
    _check_limits(body, services=services)
    if body.backbone is not None:
        backbones = [serving_as(body.backbone, await services.workers.pool.serving()).backbone]
    conversation = conversation_of(body)
    images, notes = await read_images(conversation.images, settings=services.settings)
    # Not the session of the route: a stream outlives its route, and its deadline holds here too.
    async with services.sessions(bind=services.reading) as session:
        named, policy, demonstrations = await look_up(
            session, body, policy=services.settings.policy_vectors
        )
    backbone = one_backbone(backbones, named)
    vectors, retrieval = await choose(
        services,
        body,
        named=named,
        policy=policy,
        question=conversation.question,
        picture=conversation.shown(images),
        backbone=backbone,
    )
    fingerprints = [use.record.backbone.fingerprint for use in vectors]
    wanted = fingerprints if backbone is None else [backbone, *fingerprints]
    served = backbone_for(wanted, await services.workers.pool.serving()).backbone
    limit = services.settings.max_new_tokens_limit
    request = GenerateRequest(
        **{**body.settings(), "max_tokens": min(body.max_tokens, limit)},
        request_id=request_id,
        prompt=conversation.question,
        is_raw=body.is_raw,
        turns=conversation.turns,
        images=images,
        vectors=tuple(use.to_wire() for use in vectors),
        demonstrations=demonstrations,
        instruction=body.instruction,
        fits_context=body.fits_context,
        # Within what may be said to a worker.
        deadline_seconds=min(
            max(deadline - time.monotonic(), LEAST_DEADLINE_SECONDS), MAX_DEADLINE_SECONDS
        ),
        stream=body.stream,
        baseline=body.baseline,
    )
    return Plan(request=request, vectors=vectors, retrieval=retrieval, backbone=served, notes=notes)


def one_backbone(
    backbones: Sequence[BackboneDescription], vectors: Sequence[ChosenVector] = ()
) -> str | None:
    """The fingerprint of the one that is meant, of those of one name; None where there are none.

    Raises:
        InvalidInputError: There are several, and no vector tells which is meant.
    """
    if len(backbones) > 1 and not vectors:
        raise InvalidInputError(
            "Several backbones of this name are served; a vector by name tells which is meant",
            details={"param": "model"},
        )
    wanted = {use.record.backbone.fingerprint for use in vectors}
    # Vectors that do not fit are refused where everything that steers is known.
    named = [backbone.fingerprint for backbone in backbones]
    return next((one for one in named if one in wanted), next(iter(named), None))


def _check_limits(body: SteerRequest, *, services: Services) -> None:
    limit = services.settings.max_new_tokens_limit
    if body.max_tokens > limit and not body.fits_context:
        raise InvalidInputError(
            f"At most {limit} tokens are generated, asked for {body.max_tokens}",
            details={"wanted": limit, "found": body.max_tokens, "param": "max_tokens"},
        )
    if body.baseline and services.settings.policy_vectors:
        raise InvalidInputError(
            "There is no baseline here: the server's policy steers every answer"
        )


def proven_answer(plan: Plan, answer: GenerateResponse) -> SteerBody:
    """The worker's answer as the caller is told, when its receipt shows what was asked for.

    Raises:
        SteeringError: It does not; the answer must not be given.
    """
    verify_receipt(answer.receipt, vectors=plan.vectors, backbone=plan.backbone)
    applied = tuple(
        AppliedBody(
            sha256=use.record.sha256,
            strength=use.strength,
            id=use.record.id,
            name=use.record.name,
            version=use.record.version,
            status=use.record.status,
            source=use.source,
            effect=effect_of(use.strength, answer.receipt),
        )
        for use in plan.vectors
    )
    return SteerBody(
        **{**dict(answer), "notes": (*answer.notes, *plan.notes, *notes_on_sum(plan.vectors))},
        id=plan.request.request_id,
        applied=applied,
        retrieval=plan.retrieval,
        backbone=BackboneNameBody.model_validate(plan.backbone),
    )


def notes_on_sum(chosen: Sequence[ChosenVector]) -> tuple[str, ...]:
    """A warning where several vectors of tasks act at once; those of the policy are made for it."""
    tasks = [use.record for use in chosen if use.source != "policy" and use.strength]
    if len(tasks) < 2:  # noqa: PLR2004 - a sum has two parts
        return ()
    names = ", ".join(f"{record.name}@{record.version}" for record in tasks)
    note = (
        f"The sum of {names} was never measured, and sums of vectors of different tasks usually "
        "keep neither task; train one vector on the items of all of them instead."
    )
    return (note,)
