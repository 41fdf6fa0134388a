"""The route of steered answers."""

from typing import Final

from fastapi import APIRouter, Request

from app.api.admission import AdmittedRoute
from app.api.backbones import backbone_for
from app.api.choosing import (
    AUTO,
    ChosenVector,
    find_demonstrations,
    find_vectors,
    listed_choices,
    retrieve_one,
)
from app.api.dependencies import Services, ServicesOf
from app.api.images import ImageLimits, read_images
from app.api.problems import problems, request_id_of
from app.api.racing import race
from app.api.receipts import verify_receipt
from app.api.schemas.steering import (
    AppliedBody,
    AutoRetrievalBody,
    BackboneNameBody,
    BaselineBody,
    ReceiptBody,
    SteerBody,
    SteerRequest,
    TimingsBody,
    UsageBody,
)
from app.core.backbones import BackboneDescription
from app.core.errors import InvalidInputError
from app.worker.messages import GenerateRequest, GenerateResponse

MAX_DEADLINE_SECONDS: Final = 3600.0

router = APIRouter(tags=["steering"], route_class=AdmittedRoute)


@router.post("/steer/generate", responses=problems(404, 408, 409, 413, 429, 504))
async def generate(body: SteerRequest, request: Request, services: ServicesOf) -> SteerBody:
    """Answers a prompt, steered by stored vectors, and proves that they were applied."""
    limit = services.settings.max_new_tokens_limit
    if body.max_tokens > limit:
        raise InvalidInputError(
            f"At most {limit} tokens are generated, asked for {body.max_tokens}",
            details={"wanted": limit, "found": body.max_tokens},
        )
    return await race(
        _generate(body, services=services, request_id=request_id_of(request)),
        request=request,
        seconds=services.settings.request_timeout_seconds,
    )


async def _generate(body: SteerRequest, *, services: Services, request_id: str) -> SteerBody:
    images = await read_images(body.images, limits=ImageLimits.of(services.settings))
    chosen, retrieval = await _choose(body, services=services, images=images)
    serving = await services.serving.now()
    fingerprints = [use.record.backbone.fingerprint for use in chosen]
    backbone = backbone_for(fingerprints, serving).backbone
    answer = await services.workers.generate(
        GenerateRequest(
            request_id=request_id,
            prompt=body.prompt,
            images=images,
            vectors=tuple(use.to_wire() for use in chosen),
            demonstrations=await find_demonstrations(services, body.demonstrations),
            instruction=body.instruction,
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            seed=body.seed,
            stop=body.stop,
            deadline_seconds=min(services.settings.request_timeout_seconds, MAX_DEADLINE_SECONDS),
            baseline=body.baseline,
        ),
        backbone_fingerprint=backbone.fingerprint,
    )
    verify_receipt(answer.receipt, asked=chosen, backbone=backbone)
    return _answer(
        answer, chosen=chosen, retrieval=retrieval, backbone=backbone, request_id=request_id
    )


async def _choose(
    body: SteerRequest, *, services: Services, images: tuple[bytes, ...]
) -> tuple[list[ChosenVector], AutoRetrievalBody | None]:
    if body.vector == AUTO:
        return await retrieve_one(
            services, images=images, prompt=body.prompt, strength=body.strength
        )
    choices = listed_choices(body)
    return await find_vectors(services, choices, strength=body.strength), None


def _answer(
    answer: GenerateResponse,
    *,
    chosen: list[ChosenVector],
    retrieval: AutoRetrievalBody | None,
    backbone: BackboneDescription,
    request_id: str,
) -> SteerBody:
    return SteerBody(
        id=request_id,
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
            )
            for use in chosen
        ),
        receipt=ReceiptBody.model_validate(answer.receipt),
        retrieval=retrieval,
        baseline=None if answer.baseline is None else BaselineBody.model_validate(answer.baseline),
        timings=TimingsBody.model_validate(answer.timings),
        backbone=BackboneNameBody.model_validate(backbone),
    )
