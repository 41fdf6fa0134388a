"""The route of steered answers."""

from collections.abc import Iterable, Iterator, Sequence

from fastapi import APIRouter, Request
from fastapi.sse import format_sse_event

from app.api.http.admission import AdmittedRoute
from app.api.http.problems import name_fields, problems
from app.api.schemas.steering import SteerBody, SteerRequest
from app.api.steer.conversations import picture_names
from app.api.steer.streaming import EVENTS, AnswerStream, ChoiceItem, ResponderOf
from app.api.steer.unknown_fields import settle_unknown_fields

router = APIRouter(tags=["steering"], route_class=AdmittedRoute)


@router.post(
    "/steer/generate",
    response_model=SteerBody,
    responses=EVENTS | problems(404, 408, 409, 413, 504),
)
async def generate(
    body: SteerRequest, request: Request, responder: ResponderOf
) -> SteerBody | AnswerStream:
    """Answers a prompt, steered by stored vectors, and proves that they were applied."""
    settle_unknown_fields(body, unknown="refuse")
    name_fields(request, picture_names(body.messages or ()))
    return await responder.respond([body], _Writer())


class _Writer:
    """Writes an answer as it is."""

    def whole(self, answers: Sequence[SteerBody]) -> SteerBody:
        return answers[0]

    def events(self, item: ChoiceItem) -> Iterator[bytes]:
        kind = "answer" if isinstance(item.chunk, SteerBody) else "delta"
        # In ASCII: many clients end lines at characters that JSON may hold as they are.
        yield format_sse_event(event=kind, data_str=item.chunk.model_dump_json(ensure_ascii=True))

    def end(self, _answers: Sequence[SteerBody]) -> Iterable[bytes]:
        return ()

    def error(self, content: str) -> bytes:
        return format_sse_event(event="error", data_str=content)
