"""The worker's internal HTTP: generate, embed, health. For the api only; knows no users."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry.trace import TracerProvider

from app.core.errors import DeadlineExceededError, UnavailableError, VLibraryError
from app.core.logs import get_logger
from app.core.metrics import MEDIA_TYPE, expose
from app.core.tracing import telemetry
from app.worker.messages import (
    EmbedRequest,
    EmbedResponse,
    ErrorBody,
    GenerateRequest,
    GenerateResponse,
    HealthResponse,
)
from app.worker.serving import Serving

CLIENT_GONE: Final = 499

Answer = TypeVar("Answer")

log = get_logger(__name__)


def create_app(
    serving: Serving,
    *,
    health: Callable[[], HealthResponse],
    max_body_bytes: int,
    tracing: TracerProvider | None = None,
) -> FastAPI:
    """The worker's ASGI app.

    Args:
        serving: Answers the requests; opened and closed by the caller.
        health: The worker's state at this moment.
        max_body_bytes: Larger bodies are refused before they are read.
        tracing: Takes a span for each request.
    """
    app = FastAPI(
        title="VLibrary worker",
        openapi_url=None,
        max_body_size=max_body_bytes,
        telemetry=telemetry(tracing),
    )
    app.add_exception_handler(VLibraryError, _library_error)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(Exception, _unexpected)

    @app.get("/health")
    async def report_health() -> HealthResponse:
        return health()

    @app.get("/metrics")
    async def report_metrics() -> Response:
        return Response(expose(serving.metrics.registry.collect()), media_type=MEDIA_TYPE)

    @app.post("/generate", response_model=GenerateResponse)
    async def generate(body: GenerateRequest, request: Request) -> object:
        return await _unless_gone(request, serving.generate(body))

    @app.post("/embed", response_model=EmbedResponse)
    async def embed(body: EmbedRequest, request: Request) -> object:
        return await _unless_gone(request, serving.embed(body))

    return app


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer | Response:
    """What `work` returns; it is cancelled when the client leaves, which frees its rows."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return Response(status_code=CLIENT_GONE)
    finally:
        for task in (working, leaving):
            task.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(error: VLibraryError, *, status: int) -> JSONResponse:
    retry_after = error.retry_after_seconds if isinstance(error, UnavailableError) else None
    body = ErrorBody.model_validate(
        {
            "code": error.code,
            "message": error.message,
            "details": error.details,
            "retry_after_seconds": retry_after,
        }
    )
    return JSONResponse(body.model_dump(mode="json"), status_code=status)


async def _library_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, VLibraryError):
        return await _unexpected(_request, error)
    if isinstance(error, UnavailableError):
        return _answer(error, status=503)
    if isinstance(error, DeadlineExceededError):
        return _answer(error, status=504)
    return _answer(error, status=500 if type(error) is VLibraryError else 422)


async def _malformed(_request: Request, error: Exception) -> JSONResponse:
    # The places alone: the values may be prompts and images.
    places = []
    if isinstance(error, RequestValidationError):
        places = [".".join(map(str, problem["loc"])) for problem in error.errors()]
    body = ErrorBody(
        code="invalid-input",
        message="The message is not one of this worker's version",
        details={"places": list(places)},
    )
    return JSONResponse(body.model_dump(mode="json"), status_code=422)


async def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", action="worker.request", exc_info=error)
    return _answer(VLibraryError("The worker failed on this request"), status=500)
