"""Errors in OpenAI's shape, for the routes below `/v1`; knows no route and no library error.

Source: the error object of the OpenAI API reference, and how the `openai` package reads it: the
class of its exceptions follows the status alone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Request, Response
from pydantic import BaseModel, Field

from app.core.errors import JSON

PREFIX: Final = "/v1"
_RESOURCES: Final = ("/completions", "/embeddings", "/models", "/responses")
# What is stored may be called like one of them.
_NAMING: Final = ("/vectors/", "/datasets/")
# Where a request has its texts, and what is said of one that has too many characters.
_TEXT: Final = re.compile(r"(messages|input|prompt)(\.\d+)?(\.content\.\d+\.text)?|instructions")
_TOO_LONG: Final = "String should have at most"
_BAD_REQUEST: Final = 400
_FIRST_SERVER_ERROR: Final = 500
# The same request would meet the same fault, or take as long once more.
_LASTING: Final = frozenset({500, 504})
# OpenAI knows neither: a malformed request is its 400, and its clients repeat a 409 by themselves.
_BAD_REQUESTS: Final = frozenset({409, 422})
_TYPE_OF_STATUS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
}


class OpenAIError(BaseModel):
    """What went wrong, for a person and for a program."""

    message: str
    type: str
    param: str | None = Field(description="The refused part of the request.")
    code: str | None = Field(description="The stable name of the kind of error.")


class OpenAIErrorBody(BaseModel):
    """The error body of every route below `/v1`."""

    error: OpenAIError


def is_openai_route(request: Request) -> bool:
    """Whether errors of this request are told in OpenAI's shape: also where its base URL is off."""
    path = str(request.scope.get("path", ""))
    if path.startswith(_NAMING):
        return False
    is_below = path == PREFIX or path.startswith(PREFIX + "/")
    return is_below or path.rstrip("/").endswith(_RESOURCES)


def wrong_path(request: Request) -> str:
    """What to tell whoever asks for a path that is not there."""
    base = f"{request.url.scheme}://{request.url.netloc}"
    return (
        f"There is nothing at this path; {base}/docs shows every route, and the base URL for "
        f"clients of OpenAI is {base}{PREFIX}"
    )


def openai_response(
    content: str, *, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    """The response with such a body, under the status that OpenAI has for it."""
    # Its clients repeat every 5xx unless asked not to.
    advice = {"x-should-retry": "false"} if status in _LASTING else {}
    return Response(
        content,
        status_code=_BAD_REQUEST if status in _BAD_REQUESTS else status,
        media_type="application/json",
        headers={**(headers or {}), **advice},
    )


def openai_error(
    *,
    code: str,
    status: int,
    detail: str,
    places: Sequence[tuple[str, str]],
    details: Mapping[str, JSON],
) -> dict[str, Any]:
    """The body of an error.

    Of the refused `places`, each with its reason, the first is told; `param` among the details
    names the part of the request that it is about.
    """
    param = details.get("param")
    message = detail
    if places:
        location, reason = places[0]
        param = location.removeprefix("body.")
        message = f"{param}: {reason}"
        if reason.startswith(_TOO_LONG) and _TEXT.fullmatch(param):
            code = "context-overflow"
    if code == "not-found" and param == "model":
        code = "model_not_found"
    if code == "context-overflow":
        # What clients look for to shorten a conversation.
        code = "context_length_exceeded"
    usual = "server_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error"
    error = OpenAIError(
        message=message,
        type=_TYPE_OF_STATUS.get(status, usual),
        param=None if param is None else str(param),
        code=code,
    )
    return OpenAIErrorBody(error=error).model_dump()


def openai_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route documents of the errors that it answers with, beside those of every route."""
    every: list[int | str] = [*sorted({*statuses, *_OF_EVERY_ROUTE}), "4XX"]
    return {status: {"model": OpenAIErrorBody} for status in every}


_OF_EVERY_ROUTE: Final = (400, 500, 503)
