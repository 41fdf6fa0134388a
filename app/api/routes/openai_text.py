"""The OpenAI-compatible routes beside chat completions: text completions and responses.

Source: the API reference of OpenAI, and the `openai` package as its executable form.
"""

from fastapi import APIRouter, Request

from app.api.dependencies import ServicesOf
from app.api.http.admission import AdmittedRoute
from app.api.http.openai_errors import openai_problems
from app.api.http.problems import name_fields, request_id_of
from app.api.schemas.openai.answers import TextCompletionBody
from app.api.schemas.openai.requests import CompletionRequest
from app.api.schemas.openai.responses import ResponseObjectBody, ResponsesRequest
from app.api.schemas.steering import SteerRequest
from app.api.steer.conversations import picture_names
from app.api.steer.openai.completions import TextCompletion
from app.api.steer.openai.models import named_model, vector_field
from app.api.steer.openai.requests import sampling_fields
from app.api.steer.openai.responses import ResponseWriter, messages_of
from app.api.steer.streaming import EVENTS, AnswerStream, ResponderOf
from app.api.steer.unknown_fields import settle_unknown_fields
from app.core.errors import InvalidInputError

router = APIRouter(tags=["openai"], route_class=AdmittedRoute)

PROBLEMS = openai_problems(404, 408, 413, 429, 504)


@router.post("/v1/completions", response_model=TextCompletionBody, responses=EVENTS | PROBLEMS)
async def continue_text(
    body: CompletionRequest, request: Request, *, services: ServicesOf, responder: ResponderOf
) -> TextCompletionBody | AnswerStream:
    """Continues texts as OpenAI's completions do: without the chat template, steered as ever."""
    if body.vlibrary.demonstrations is not None:
        raise InvalidInputError(
            "A text that is continued as it stands has no demonstrations; chat completions have",
            details={"param": "vlibrary.demonstrations"},
        )
    ignored = settle_unknown_fields(body, unknown=services.settings.openai_unknown)
    backbones, vector = await named_model(services, body.model)
    name_fields(request, {"vector": vector_field(vector)})
    limit = services.settings.max_new_tokens_limit
    fields = sampling_fields(
        body, vector=vector, max_tokens=body.max_tokens, max_tokens_limit=limit
    )
    steer_requests = [
        SteerRequest(prompt=prompt, is_raw=True, logprobs=body.logprobs, **fields)
        for prompt in body.prompt
    ]
    writer = TextCompletion(id=f"cmpl-{request_id_of(request)}", body=body, ignored=ignored)
    return await responder.respond(steer_requests, writer, backbones=backbones, count=writer.count)


@router.post("/v1/responses", response_model=ResponseObjectBody, responses=EVENTS | PROBLEMS)
async def respond(
    body: ResponsesRequest, request: Request, *, services: ServicesOf, responder: ResponderOf
) -> ResponseObjectBody | AnswerStream:
    """Answers a conversation as OpenAI's responses do; it is not kept for a next one."""
    ignored = settle_unknown_fields(body, unknown=services.settings.openai_unknown)
    backbones, vector = await named_model(services, body.model)
    names = {
        "vector": vector_field(vector),
        "messages": "input",
        "structured_outputs": "structured_outputs" if body.structured_outputs else "text.format",
    }
    name_fields(request, names | picture_names(body.input, field="input"))
    limit = services.settings.max_new_tokens_limit
    if (body.n or 1) > 1:
        raise InvalidInputError("A response is one answer", details={"param": "n"})
    fields = sampling_fields(
        body, vector=vector, max_tokens=body.max_output_tokens, max_tokens_limit=limit
    )
    fields["structured_outputs"] = body.structured_outputs or body.form.form
    steer_request = SteerRequest(messages=messages_of(body), **fields)
    writer = ResponseWriter(
        id=f"resp_{request_id_of(request)}", body=body, sampling=steer_request, ignored=ignored
    )
    return await responder.respond([steer_request], writer, backbones=backbones)
