"""The one table from library errors to HTTP statuses, and the handlers of everything raised.

Messages of library errors are written to be read by callers; everything else is answered with a
fixed text and explained in the log only.
"""

import math
import re
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from app.api.http.openai_errors import wrong_path
from app.api.http.problems import FieldProblem, problem_content, problem_response, title_of
from app.core.cancellation import ClientGoneError
from app.core.errors import (
    InProgressError,
    StorageFullError,
    UnavailableError,
    VLibraryError,
    is_out_of_space,
)
from app.core.telemetry.logs import get_logger
from app.library.access.idempotency import StoredAnswer

ErrorHandler: TypeAlias = Callable[[Request, Any], Coroutine[Any, Any, Response]]

STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "error": 500,
    "invalid-input": 422,
    "invalid-vector-file": 422,
    "invalid-image": 422,
    "invalid-dataset": 422,
    "context-overflow": 400,
    "not-found": 404,
    "conflict": 409,
    "in-progress": 409,
    "too-large": 413,
    "quota-exceeded": 403,
    "incompatible-backbone": 409,
    "unsupported-backbone": 409,
    "steering-failed": 500,
    "corrupt-data": 500,
    "storage-full": 507,
    "unavailable": 503,
    "busy": 429,
    "worker-unavailable": 503,
    "storage-unavailable": 503,
    "out-of-device-memory": 503,
    "deadline-exceeded": 504,
    "cancelled": 409,
    "configuration": 500,
}
CODE_OF_STATUS: Final[Mapping[int, str]] = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    412: "precondition-failed",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid-input",
    429: "busy",
    500: "internal",
    503: "unavailable",
    507: "storage-full",
}
CLIENT_CLOSED_REQUEST: Final = 499
# Raised with words of ours, never by routing or the framework.
OWN_WORDS: Final = frozenset({403, 408, 412, 415})
INTERNAL_DETAIL: Final = "The server failed; its log has the request id"
DATABASE_RETRY_SECONDS: Final = 2.0
IN_PROGRESS_RETRY_SECONDS: Final = 1
WAIT: Final = "retry_after_seconds"
_FIRST_SERVER_ERROR: Final = 500
_UNREADABLE_BODY: Final = "The body of the request cannot be read"
# What the framework reads as JSON; everything else is a text to it.
_JSON: Final = re.compile(r"application/([^;]*\+)?json\s*(;|$)", re.IGNORECASE)
_MAX_FIELD_PROBLEMS: Final = 20
_MAX_LOCATION_CHARACTERS: Final = 200
# What Pydantic calls one of several forms that a part may have, between the names of fields.
_FORM: Final = re.compile(r"[A-Z]\w*|.*[\[(].*", re.DOTALL)
_ABOUT_NAMES: Final = frozenset({"missing", "extra_forbidden"})
# Pydantic speaks of what Python has.
_IN_WORDS_OF_JSON: Final[Mapping[str, str]] = {
    "tuple_type": "Input should be a valid list",
    "dict_type": "Input should be a valid object",
    "model_attributes_type": "Input should be a valid object",
}

log = get_logger(__name__)


def status_of(error: VLibraryError) -> int:
    """The HTTP status of a library error; a class that has no own row takes its base's."""
    codes = (str(getattr(kind, "code", "")) for kind in type(error).__mro__)
    return next(STATUS_OF_CODE[code] for code in codes if code in STATUS_OF_CODE)


def error_handlers() -> dict[int | type[Exception], ErrorHandler]:
    """What makes every error of the app a problem; what escapes these is the outer shim's."""
    return {
        VLibraryError: handle_library_error,
        AnsweredBeforeError: handle_answered_before,
        RequestValidationError: handle_validation_error,
        HTTPException: handle_http_exception,
        OperationalError: handle_database_error,
        InterfaceError: handle_database_error,
        OSError: handle_system_error,
        PoolTimeoutError: handle_database_error,
        ClientDisconnect: handle_client_gone,
        ClientGoneError: handle_client_gone,
    }


class AnsweredBeforeError(Exception):
    """No failure: the request is answered as it was before, and nothing is done again."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__()
        self.answer = answer


async def handle_answered_before(_request: Request, error: AnsweredBeforeError) -> Response:
    """The stored answer."""
    answer = error.answer
    headers = {"idempotency-replayed": "true"}
    if answer.location is not None:
        headers["location"] = answer.location
    return JSONResponse(answer.body, status_code=answer.status, headers=headers)


async def handle_library_error(request: Request, error: VLibraryError) -> Response:
    """A library error by the table, with Retry-After where the caller should come back."""
    seconds = _seconds_to_wait(error)
    headers = None if seconds is None else {"retry-after": str(seconds)}
    return problem_response(
        request, headers=headers, details=error.details, **_logged_facts("request failed", error)
    )


def error_content(request: Request, error: Exception) -> str:
    """The body of an error that comes when the response has begun, for an event of its stream."""
    if not isinstance(error, VLibraryError):
        log.error("stream crashed", exc_info=error)
        return problem_content(request, code="internal", status=500, detail=INTERNAL_DETAIL)
    seconds = _seconds_to_wait(error)
    # It is too late for a header.
    details = error.details if seconds is None else {**error.details, WAIT: seconds}
    return problem_content(request, details=details, **_logged_facts("stream failed", error))


def _logged_facts(event: str, error: VLibraryError) -> dict[str, Any]:
    status = status_of(error)
    if status >= _FIRST_SERVER_ERROR:
        log.warning(event, code=error.code, error_message=error.message)
    return {"code": error.code, "status": status, "detail": error.message}


def _seconds_to_wait(error: VLibraryError) -> int | None:
    if isinstance(error, InProgressError):
        return IN_PROGRESS_RETRY_SECONDS
    if not isinstance(error, UnavailableError):
        return None
    seconds = 1.0 if error.retry_after_seconds is None else error.retry_after_seconds
    return max(1, math.ceil(seconds))


async def handle_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Which fields were refused and why, without any part of the input."""
    is_json = _JSON.match(request.headers.get("content-type", "")) is not None
    # Of several forms that a part may have each says why it is not that one.
    reasons: dict[str, list[str]] = {}
    for item in error.errors():
        reasons.setdefault(_location(item), []).append(_message(item, is_json=is_json))
    return problem_response(
        request,
        code="invalid-input",
        status=422,
        detail=f"{len(reasons)} part(s) of the request were refused",
        errors=[
            FieldProblem(location=place, message="; or ".join(dict.fromkeys(messages)))
            for place, messages in list(reasons.items())[:_MAX_FIELD_PROBLEMS]
        ],
    )


def _location(item: Mapping[str, Any]) -> str:
    if item.get("type") == "json_invalid":
        return "body"
    *inner, last = item.get("loc", ()) or ("",)
    parts = [part for part in inner if not _FORM.fullmatch(str(part))]
    if item.get("type") in _ABOUT_NAMES or not _FORM.fullmatch(str(last)):
        parts.append(last)
    # A location holds keys that the caller chose, hence the cleaning.
    text = ".".join(map(str, parts))
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable[:_MAX_LOCATION_CHARACTERS]


def _message(item: Mapping[str, Any], *, is_json: bool) -> str:
    message = str(item.get("msg", ""))
    kind = str(item.get("type"))
    if kind == "model_attributes_type" and item.get("loc") == ("body",) and not is_json:
        return "Input should be JSON, with the header content-type: application/json"
    if kind in _IN_WORDS_OF_JSON:
        return _IN_WORDS_OF_JSON[kind]
    if kind == "json_invalid":
        return f"this is no JSON from character {item.get('loc', (0,))[-1]} on"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if "error" in item.get("ctx", {}):
        # Parsers quote what they stumbled over behind the comma.
        return message.partition(",")[0]
    # Callers know no tuples.
    return message.replace("Tuple should", "List should", 1)


async def handle_http_exception(request: Request, error: HTTPException) -> Response:
    """What routing and the framework refuse: unknown paths, methods, oversized bodies."""
    detail = None
    if error.status_code in OWN_WORDS:
        detail = error.detail
    elif error.status_code == HTTPStatus.BAD_REQUEST:
        detail = _UNREADABLE_BODY + _why_unreadable(request, error)
    return http_problem(request, error.status_code, headers=error.headers, detail=detail)


def _why_unreadable(request: Request, error: HTTPException) -> str:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        return ": wanted it as it is, found a content-encoding"
    return ": wanted JSON in UTF-8" if isinstance(error.__cause__, UnicodeDecodeError) else ""


def http_problem(
    request: Request,
    status: int,
    *,
    headers: Mapping[str, str] | None = None,
    detail: str | None = None,
) -> Response:
    """The problem of an HTTP status, with its title where there is no detail."""
    if status == HTTPStatus.NOT_FOUND:
        # Of records that are not there library errors tell, so this is about the path.
        detail = wrong_path(request)
    limit = request.scope.get(MAX_BODY_SIZE_SCOPE_KEY)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and limit is not None:
        detail = f"The body is too large: wanted at most {limit} bytes"
    return problem_response(
        request,
        code=CODE_OF_STATUS.get(status, "error"),
        status=status,
        detail=detail or title_of(status),
        headers=headers,
    )


async def handle_database_error(request: Request, error: Exception) -> Response:
    """A database that is away, restarting or overloaded is asked again by the caller."""
    reason = type(error.orig).__name__ if isinstance(error, DBAPIError) else type(error).__name__
    log.warning("database unavailable", reason=reason)
    unavailable = UnavailableError(
        "The database does not answer", retry_after_seconds=DATABASE_RETRY_SECONDS
    )
    return await handle_library_error(request, unavailable)


async def handle_system_error(request: Request, error: OSError) -> Response:
    """A full disk is said so; whatever else the system refuses is a failure of ours.

    Raises:
        OSError: The system refused something else.
    """
    if not is_out_of_space(error):
        raise error
    full = StorageFullError("The server has no room left for this; try again once there is")
    return await handle_library_error(request, full)


async def handle_client_gone(_request: Request, _error: Exception) -> Response:
    """Nobody reads this; it only ends the request in good order."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)
