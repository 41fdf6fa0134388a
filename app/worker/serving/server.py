"""The worker's internal HTTP: generate, embed, health. For the api only; knows no users."""

import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry.trace import TracerProvider
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.cancellation import ClientGoneError, run_until_disconnect
from app.core.errors import DeadlineExceededError, UnavailableError, VLibraryError
from app.core.telemetry.logs import get_logger
from app.core.telemetry.tracing import telemetry
from app.rpc.generation import GenerateDelta, GenerateResponse
from app.rpc.messages import (
    EmbedRequest,
    EmbedResponse,
    ErrorBody,
    GenerateRequest,
    HealthResponse,
    StreamLine,
    unpack,
)
from app.worker.serving.service import Serving

CLIENT_GONE: Final = 499
LINES: Final = "application/x-ndjson"
# Probes of containers have no secret; what they are told is which backbone is loaded.
PUBLIC_PATH: Final = "/health"

log = get_logger(__name__)


def create_app(
    serving: Serving,
    *,
    health: Callable[[], HealthResponse],
    max_body_bytes: int,
    secret: str | None = None,
    tracing: TracerProvider | None = None,
) -> FastAPI:
    """The worker's ASGI app.

    `health` is the worker's state at this moment. Bodies of more than `max_body_bytes` are refused
    before they are read. The api shows the secret; None lets everybody in, which no process of its
    own may.
    """
    app = FastAPI(
        title="VLibrary worker",
        openapi_url=None,
        max_body_size=max_body_bytes,
        telemetry=telemetry(tracing),
        middleware=[] if secret is None else [Middleware(require_secret, secret=secret)],
    )
    app.add_exception_handler(ClientGoneError, _left)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(VLibraryError, _failed)
    app.add_exception_handler(Exception, _failed)

    @app.get("/health")
    async def report_health() -> HealthResponse:
        return health()

    @app.get("/metrics")
    async def report_metrics() -> Response:
        exposition = generate_latest(serving.metrics.registry)
        return Response(exposition, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.post("/generate", response_model=None)
    async def generate(request: Request) -> Response:
        body = unpack(await _received(request), GenerateRequest)
        items = serving.generate(body)
        # What is refused before the first token has its own status.
        first = await run_until_disconnect(_first(items), receive=request.receive)
        if isinstance(first, GenerateResponse):
            await items.aclose()
            return Response(_line(first), media_type=LINES)
        return StreamingResponse(_lines(first, items), media_type=LINES)

    @app.post("/embed")
    async def embed(request: Request) -> EmbedResponse:
        body = unpack(await _received(request), EmbedRequest)
        return await run_until_disconnect(serving.embed(body), receive=request.receive)

    return app


async def _received(request: Request) -> bytes:
    """The body, which the request does not keep: pictures would be there twice while it runs."""
    return b"".join([chunk async for chunk in request.stream()])


StreamItem: TypeAlias = GenerateDelta | GenerateResponse


async def _first(items: AsyncGenerator[StreamItem, None]) -> StreamItem:
    return await anext(items)


async def _lines(
    first: StreamItem, others: AsyncGenerator[StreamItem, None]
) -> AsyncIterator[bytes]:
    """The items of an answer as lines; an error is the last one."""
    async with aclosing(others):
        yield _line(first)
        try:
            async for item in others:
                yield _line(item)
        except Exception as error:  # noqa: BLE001 - the status is long gone
            yield _line(_body_of(_public_error(error)))


def _line(line: StreamLine) -> bytes:
    return line.model_dump_json(exclude_none=True).encode() + b"\n"


def _body_of(error: VLibraryError) -> ErrorBody:
    retry_after = error.retry_after_seconds if isinstance(error, UnavailableError) else None
    return ErrorBody.model_validate(
        {
            "code": error.code,
            "message": error.message,
            "details": error.details,
            "retry_after_seconds": retry_after,
        }
    )


def _public_error(error: Exception) -> VLibraryError:
    """What may be told of an error; the rest of it stands in the log."""
    if isinstance(error, VLibraryError):
        return error
    log.error("request failed", action="worker.request", exc_info=error)
    return VLibraryError("The worker failed on this request")


def _status_of(error: VLibraryError) -> int:
    if isinstance(error, UnavailableError):
        return 503
    if isinstance(error, DeadlineExceededError):
        return 504
    return 500 if type(error) is VLibraryError else 422


async def _failed(_request: Request, error: Exception) -> JSONResponse:
    public_error = _public_error(error)
    return JSONResponse(
        _body_of(public_error).model_dump(mode="json"), status_code=_status_of(public_error)
    )


async def _left(_request: Request, _error: Exception) -> Response:
    """Nobody reads this; it only ends the request in good order."""
    return Response(status_code=CLIENT_GONE)


def require_secret(app: ASGIApp, *, secret: str) -> ASGIApp:
    """The app, but 401 for whoever lacks the api's secret: a worker trusts what it is asked."""
    wanted = f"Bearer {secret}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = Headers(scope=scope).get("authorization", "").encode("latin-1", "replace")
            # An api with another secret is to hear of it before it sends anybody here.
            is_open = scope["path"] == PUBLIC_PATH and not header
            if not is_open and not hmac.compare_digest(header, wanted):
                message = (
                    "wanted the secret of this worker; VLIBRARY_WORKER_SECRET must be the same"
                )
                body = {"code": "worker-unavailable", "message": f"{message} for it and the api"}
                await JSONResponse(body, status_code=401)(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded
