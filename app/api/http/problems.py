"""Error bodies of the api: RFC 9457 problems with a stable code, never with the input in them.

Below `/v1` the same facts are told in OpenAI's shape.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response
from pydantic import BaseModel, Field, JsonValue

from app.api.http.openai_errors import (
    is_openai_route,
    openai_error,
    openai_response,
)
from app.core.errors import JSON
from app.library.database import storable

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:vlibrary:error:"


class FieldProblem(BaseModel):
    """One refused part of the request."""

    location: str = Field(description="Where it stands, such as `body.strength`.")
    message: str


class Problem(BaseModel):
    """Why a request was not served."""

    type: str = Field(description="`urn:vlibrary:error:` and the code.")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str = Field(description="The stable name of the kind of error.")
    request_id: str
    errors: list[FieldProblem] = []
    details: dict[str, JsonValue] = {}


def request_id_of(request: Request) -> str:
    """The id that the request's middleware gave it."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def name_fields(request: Request, names: Mapping[str, str]) -> None:
    """Lets errors of this request tell fields of this api by what the caller has for them."""
    request.state.field_names = names


def problem_response(
    request: Request,
    *,
    status: int,
    headers: Mapping[str, str] | None = None,
    **facts: Any,  # noqa: ANN401 - of `problem_content`
) -> Response:
    """The response that tells of a problem; any text can be sent, even what UTF-8 cannot hold."""
    content = problem_content(request, status=status, **facts)
    if is_openai_route(request):
        return openai_response(content, status=status, headers=headers)
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def problem_content(
    request: Request,
    *,
    code: str,
    status: int,
    detail: str,
    errors: Sequence[FieldProblem] = (),
    details: Mapping[str, JSON] | None = None,
) -> str:
    """The JSON that tells of a problem, in ASCII: also what stands in an event of a stream."""
    details = dict(details or {})
    field = str(details.get("param"))
    name = request.scope.get("state", {}).get("field_names", {}).get(field)
    if name is not None:
        details["param"] = name
        detail = detail.replace(f"{field}: ", f"{name}: ", 1)
    if is_openai_route(request):
        places = [(error.location, error.message) for error in errors]
        body = openai_error(
            code=code,
            status=status,
            detail=detail,
            places=places,
            details=details,
        )
    else:
        body = {
            "type": TYPE_PREFIX + code,
            "title": title_of(status),
            "status": status,
            "detail": detail,
            "code": code,
            "request_id": request_id_of(request),
            "errors": [error.model_dump() for error in errors],
            "details": storable(details),
        }
    return json.dumps(body, allow_nan=False, default=str)


def title_of(status: int) -> str:
    """The phrase of an HTTP status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route documents of the errors that it answers with, beside those of every route."""
    every = sorted({*statuses, *_OF_EVERY_ROUTE})
    return {
        status: {
            "description": title_of(status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in every
    }


_OF_EVERY_ROUTE: Final = (400, 401, 403, 422, 429, 500, 503)
