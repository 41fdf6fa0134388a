"""The route that finds vectors for a query."""

from fastapi import APIRouter, Request

from app.api.dependencies import Services, ServicesOf
from app.api.http.admission import AdmittedRoute
from app.api.http.problems import name_fields, problems
from app.api.schemas.retrieval import MatchBody, RetrievalBody, RetrieveRequest
from app.api.steer.images import read_images
from app.api.steer.vector_selection import search
from app.core.cancellation import run_until_disconnect
from app.library.catalogue.filters import VectorFilters
from app.rpc.backbones import backbone_for, serving_as

router = APIRouter(tags=["retrieval"], route_class=AdmittedRoute)


@router.post("/retrieve", responses=problems(404, 408, 409, 413, 504))
async def retrieve(body: RetrieveRequest, request: Request, services: ServicesOf) -> RetrievalBody:
    """Ranks vectors for an image, a text, both, or an embedding; abstains when none fits."""
    name_fields(request, {"images.0": "image"})
    return await run_until_disconnect(
        _retrieve(body, services=services),
        receive=request.receive,
        seconds=services.settings.request_timeout_seconds,
    )


async def _retrieve(body: RetrieveRequest, *, services: Services) -> RetrievalBody:
    serving = await services.workers.pool.serving()
    named = body.backbone
    texts = [] if body.image is None else [body.image]
    images, _ = await read_images(texts, settings=services.settings)
    filters = VectorFilters(name=body.name, text=body.words, tags=tuple(body.tags))
    result, space = await search(
        services,
        backbone_for([], serving) if named is None else serving_as(named, serving),
        image=next(iter(images), None),
        text=body.text,
        embedding=body.embedding,
        k=body.k,
        min_epoch=body.min_epoch,
        prefer=body.prefer,
        only_ready=body.only_ready,
        filters=None if filters == VectorFilters() else filters,
    )
    return RetrievalBody(
        matches=tuple(MatchBody.model_validate(match) for match in result.matches),
        abstained=result.abstained,
        reason=result.reason,
        epoch=result.epoch,
        space=space,
    )
