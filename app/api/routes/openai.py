"""The OpenAI-compatible routes: the `openai` package and what speaks like it work unchanged.

Source: the API reference of OpenAI, and the `openai` package as its executable form.
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, HTTPException, Path, Request

from app.api.dependencies import Services, ServicesOf, SessionOf
from app.api.http.admission import AdmittedRoute
from app.api.http.openai_errors import openai_problems
from app.api.http.problems import name_fields, request_id_of
from app.api.schemas.openai.answers import (
    ChatCompletionBody,
    EmbeddingBody,
    EmbeddingsBody,
    EmbeddingSpaceBody,
    EmbeddingsUsageBody,
    ModelBody,
    ModelsBody,
    TextCompletionBody,
)
from app.api.schemas.openai.requests import (
    MAX_MODEL_CHARACTERS,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
)
from app.api.schemas.openai.responses import ResponseObjectBody, ResponsesRequest
from app.api.schemas.steering import SteerRequest
from app.api.steer.conversations import picture_names
from app.api.steer.generation import one_backbone
from app.api.steer.images import read_images
from app.api.steer.openai.completions import ChatCompletion, TextCompletion
from app.api.steer.openai.models import (
    existing_model,
    model_body,
    model_name,
    named_model,
    served_backbones,
)
from app.api.steer.openai.requests import steering_of
from app.api.steer.openai.responses import ResponseWriter, messages_of
from app.api.steer.streaming import EVENTS, AnswerStream, ResponderOf
from app.api.steer.unknown_fields import settle_unknown_fields
from app.core.cancellation import run_until_disconnect
from app.core.errors import InvalidInputError
from app.library.vectors import list_in_use
from app.rpc.messages import MAX_EMBED_ITEMS, EmbedRequest

router = APIRouter(tags=["openai"])
admitted = APIRouter(route_class=AdmittedRoute)

MAX_LISTED_VECTORS = 10_000
PROBLEMS = openai_problems(404, 408, 413, 429, 504)
ModelId = Annotated[str, Path(max_length=MAX_MODEL_CHARACTERS)]


@admitted.post(
    "/v1/chat/completions", response_model=ChatCompletionBody, responses=EVENTS | PROBLEMS
)
async def complete(
    body: ChatRequest, request: Request, *, services: ServicesOf, responder: ResponderOf
) -> ChatCompletionBody | AnswerStream:
    """Answers a question as OpenAI's chat completions do, steered by stored vectors."""
    fields, backbones, ignored = await steering_of(
        body,
        request,
        services=services,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        form=None if body.response_format is None else body.response_format.form,
        names={"structured_outputs": "response_format", **picture_names(body.messages)},
    )
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    steer_request = SteerRequest(messages=body.messages, logprobs=logprobs, **fields)
    writer = ChatCompletion(id=f"chatcmpl-{request_id_of(request)}", body=body, ignored=ignored)
    return await responder.respond([steer_request], writer, backbones=backbones, count=writer.count)


@admitted.post("/v1/completions", response_model=TextCompletionBody, responses=EVENTS | PROBLEMS)
async def continue_text(
    body: CompletionRequest, request: Request, *, services: ServicesOf, responder: ResponderOf
) -> TextCompletionBody | AnswerStream:
    """Continues texts as OpenAI's completions do: without the chat template, steered as ever."""
    if body.vlibrary.demonstrations is not None:
        raise InvalidInputError(
            "A text that is continued as it stands has no demonstrations; chat completions have",
            details={"param": "vlibrary.demonstrations"},
        )
    fields, backbones, ignored = await steering_of(
        body, request, services=services, max_tokens=body.max_tokens, names={}
    )
    steer_requests = [
        SteerRequest(prompt=prompt, is_raw=True, logprobs=body.logprobs, **fields)
        for prompt in body.prompt
    ]
    writer = TextCompletion(id=f"cmpl-{request_id_of(request)}", body=body, ignored=ignored)
    return await responder.respond(steer_requests, writer, backbones=backbones, count=writer.count)


@admitted.post("/v1/responses", response_model=ResponseObjectBody, responses=EVENTS | PROBLEMS)
async def respond(
    body: ResponsesRequest, request: Request, *, services: ServicesOf, responder: ResponderOf
) -> ResponseObjectBody | AnswerStream:
    """Answers a conversation as OpenAI's responses do; it is not kept for a next one."""
    if (body.n or 1) > 1:
        raise InvalidInputError("A response is one answer", details={"param": "n"})
    names = {"messages": "input", "structured_outputs": "text.format"}
    fields, backbones, ignored = await steering_of(
        body,
        request,
        services=services,
        max_tokens=body.max_output_tokens,
        form=body.form.form,
        names=names | picture_names(body.input, field="input"),
    )
    steer_request = SteerRequest(messages=messages_of(body), **fields)
    writer = ResponseWriter(
        id=f"resp_{request_id_of(request)}", body=body, sampling=steer_request, ignored=ignored
    )
    return await responder.respond([steer_request], writer, backbones=backbones)


@admitted.post("/v1/embeddings", responses=PROBLEMS)
async def embed(body: EmbeddingsRequest, request: Request, services: ServicesOf) -> EmbeddingsBody:
    """Embeds texts, images or both in the space in which vectors are found."""
    given = [index for index, image in enumerate(body.images) if image is not None]
    places = {f"images.{number}": f"vlibrary.images.{index}" for number, index in enumerate(given)}
    name_fields(request, places)
    return await run_until_disconnect(
        _embeddings(body, services=services),
        receive=request.receive,
        seconds=services.settings.request_timeout_seconds,
    )


async def _embeddings(body: EmbeddingsRequest, *, services: Services) -> EmbeddingsBody:
    ignored = settle_unknown_fields(body, unknown=services.settings.openai_unknown)
    backbones, vector = await named_model(services, body.model)
    if vector is not None:
        raise InvalidInputError(
            "Embeddings come from a backbone; no vector steers them", details={"param": "model"}
        )
    backbone = one_backbone(backbones)
    texts = [image for image in body.images if image is not None]
    images, _ = await read_images(texts, settings=services.settings)
    read = iter(images)
    files = [None if image is None else next(read) for image in body.images]
    questions = [text or None for text in body.input]
    answers = [
        await services.workers.embed(
            EmbedRequest(images=tuple(files[batch]), questions=tuple(questions[batch])),
            backbone_fingerprint=backbone,
        )
        for start in range(0, len(questions), MAX_EMBED_ITEMS)
        for batch in [slice(start, start + MAX_EMBED_ITEMS)]
    ]
    space, dim = answers[0].space, answers[0].dim
    if body.dimensions not in {None, dim}:
        raise InvalidInputError(
            f"Embeddings have {dim} dimensions, asked for {body.dimensions}",
            details={"param": "dimensions", "wanted": dim, "found": body.dimensions},
        )
    embeddings = [values for answer in answers for values in answer.embeddings]
    data = tuple(
        EmbeddingBody(index=index, embedding=_encoded(values, encoding=body.encoding_format))
        for index, values in enumerate(embeddings)
    )
    num_tokens = sum(answer.num_tokens for answer in answers)
    return EmbeddingsBody(
        data=data,
        model=body.model,
        usage=EmbeddingsUsageBody(prompt_tokens=num_tokens, total_tokens=num_tokens),
        vlibrary=EmbeddingSpaceBody(space=space, dimension=dim, ignored=ignored),
    )


def _encoded(
    values: Sequence[float], *, encoding: Literal["float", "base64"] | None
) -> tuple[float, ...] | str:
    if encoding != "base64":
        return tuple(values)
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")


@router.get("/v1/models", responses=openai_problems())
async def list_models(services: ServicesOf, session: SessionOf) -> ModelsBody:
    """Lists the backbones that are served, and every vector of theirs that was not retired."""
    # By name whoever asks decides, so vectors without proof are among them.
    backbones = await served_backbones(services)
    # Several may have one name.
    named = {model_name(backbone): backbone for backbone in reversed(backbones)}
    models = [model_body(backbone) for backbone in reversed(named.values())]
    for backbone in backbones:
        offered = await list_in_use(session, backbone.fingerprint, limit=MAX_LISTED_VECTORS)
        models += [model_body(backbone, record) for record in offered]
    return ModelsBody(data=tuple(models))


@router.get("/v1/models/{model:path}", responses=openai_problems(404))
async def get_model(model: ModelId, services: ServicesOf, session: SessionOf) -> ModelBody:
    """Describes one model; any reference to a vector that exists may follow the backbone."""
    if not model:
        raise HTTPException(404)
    backbone, record = await existing_model(services, session, model)
    return model_body(backbone, record, name=model)


router.include_router(admitted)
