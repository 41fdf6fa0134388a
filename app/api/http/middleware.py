"""Pure ASGI layers around every request: its id, count and log line, and what comes last."""

import re
import time
from collections.abc import Collection
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.access import SAFE_METHODS
from app.api.http.errors import INTERNAL_DETAIL, http_problem
from app.api.http.metrics import ApiMetrics
from app.api.http.problems import problem_response
from app.core.identifiers import new_id
from app.core.telemetry.logs import get_logger

REQUEST_ID_HEADER: Final = "x-request-id"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIRST_ERROR_STATUS: Final = 400
# What Starlette's layers refuse in a word of text.
_NOT_ALLOWED: Final = (
    "The header Host or Origin names what is not allowed here; "
    "VLIBRARY_ALLOWED_HOSTS and VLIBRARY_CORS_ORIGINS allow more"
)
_OTHER_SITE: Final = "Pages of other sites may not write here; VLIBRARY_CORS_ORIGINS allows some"

log = get_logger(__name__)


class ObservedRequests:
    """Counts every request, and gives it an id: the caller's when it is harmless, or a fresh one.

    The id is in the response's headers, in every error and in every log line of the request.
    """

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, counts it and writes its log line."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else str(new_id())
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("cache-control", "no-store")
            await send(message)

        start = time.perf_counter()
        with (
            self._metrics.requests_in_flight.track_inprogress(),
            structlog.contextvars.bound_contextvars(request_id=request_id),
        ):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                # Only now is it known which route it was: the template of the path, never the path
                # itself, which may hold what a caller typed.
                route = str(getattr(scope.get("route"), "path_format", "-"))
                method, seconds = scope["method"], time.perf_counter() - start
                self._metrics.note_request(
                    route=route, method=method, status=status, seconds=seconds
                )
                log.info(
                    "request", method=method, route=route, status=status, seconds=round(seconds, 6)
                )


class ProblemShim:
    """Makes problems of what no handler saw: unexpected errors, and plain text error bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        has_started = False
        is_replaced = False

        async def send_problem(message: Message) -> None:
            nonlocal has_started, is_replaced
            if message["type"] == "http.response.start":
                has_started = True
                if _is_plain_error(message):
                    is_replaced = True
                    detail = _NOT_ALLOWED if message["status"] == HTTPStatus.BAD_REQUEST else None
                    response = http_problem(request, message["status"], detail=detail)
                    await response(scope, receive, send)
            if not is_replaced:
                await send(message)

        try:
            await self.app(scope, receive, send_problem)
        except Exception:
            log.exception("request crashed")
            if has_started:
                raise
            response = problem_response(
                request, code="internal", status=500, detail=INTERNAL_DETAIL
            )
            await response(scope, receive, send)


def _is_plain_error(message: Message) -> bool:
    content_type = Headers(raw=message["headers"]).get("content-type", "")
    return message["status"] >= _FIRST_ERROR_STATUS and content_type.startswith("text/plain")


class SameSiteOnly:
    """Refuses writes that a browser sends for a page of another site.

    On this machine the api listens without a key, so any page could otherwise post to it.

    `origins` are sites whose pages may all the same; `*` means all.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str] = ()) -> None:
        self.app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or answers 403."""
        if (
            scope["type"] != "http"
            or scope["method"] in SAFE_METHODS
            or self._is_own(Headers(scope=scope))
        ):
            await self.app(scope, receive, send)
            return
        await http_problem(Request(scope), 403, detail=_OTHER_SITE)(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if self._origins & {"*", origin}:
            return True
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in {"none", "same-origin"}
        # Old browsers tell only where the page came from; programs tell nothing.
        return origin is None or urlsplit(origin).netloc == headers.get("host")
