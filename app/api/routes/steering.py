"""The route of steered answers."""

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from fastapi.sse import format_sse_event

from app.api.dependencies import ServicesOf
from app.api.http.admission import AdmittedRoute
from app.api.http.problems import problems
from app.api.schemas.steering import SteerBody, SteerRequest
from app.api.steer.event_streams import EVENTS, AnswerStream, answer_events
from app.api.steer.generation import answer_whole
from app.api.steer.streaming import ChoiceItem, start_answer
from app.api.steer.unknown_fields import settle_unknown_fields

router = APIRouter(tags=["steering"], route_class=AdmittedRoute)


@router.post(
    "/steer/generate",
    response_model=SteerBody,
    responses=EVENTS | problems(404, 408, 409, 413, 429, 504),
)
async def generate(
    body: SteerRequest, request: Request, *, response: Response, services: ServicesOf
) -> SteerBody | AnswerStream:
    """Answers a prompt, steered by stored vectors, and proves that they were applied."""
    for message in body.messages or ():
        settle_unknown_fields(message, unknown="refuse")
    if body.stream:
        started = await start_answer(body, services=services, request=request)
        events = answer_events(started, request=request, render=_events_of, error_event="error")
        return AnswerStream(started, events)
    plan, (answer,) = await answer_whole(body, services=services, request=request)
    response.headers.update(plan.headers())
    return answer


def _events_of(item: ChoiceItem) -> Iterator[bytes]:
    piece = item.piece
    if isinstance(piece, SteerBody):
        yield format_sse_event(event="answer", data_str=piece.model_dump_json())
    else:
        yield format_sse_event(event="delta", data_str=piece.model_dump_json())
