"""The worker's internal HTTP: generate, stream, embed, health. For the api only; knows no users."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry.trace import TracerProvider
from starlette.middleware import Middleware

from app.core.errors import DeadlineExceededError, UnavailableError, VLibraryError
from app.core.logs import get_logger
from app.core.metrics import MEDIA_TYPE, expose
from app.core.tracing.telemetry import telemetry
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
from app.worker.serving.access import OnlyTheApi
from app.worker.serving.service import Serving

CLIENT_GONE: Final = 499
LINES: Final = "application/x-ndjson"

Answer = TypeVar("Answer")

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

    Args:
        serving: Answers the requests; opened and closed by the caller.
        health: The worker's state at this moment.
        max_body_bytes: Larger bodies are refused before they are read.
        secret: What the api shows; None lets everybody in, which no process of its own may.
        tracing: Takes a span for each request.
    """
    app = FastAPI(
        title="VLibrary worker",
        openapi_url=None,
        max_body_size=max_body_bytes,
        telemetry=telemetry(tracing),
        middleware=[] if secret is None else [Middleware(OnlyTheApi, secret=secret)],
    )
    app.add_exception_handler(VLibraryError, _failed)
    app.add_exception_handler(Exception, _failed)

    @app.get("/health")
    async def report_health() -> HealthResponse:
        return health()

    @app.get("/metrics")
    async def report_metrics() -> Response:
        return Response(expose(serving.metrics.registry.collect()), media_type=MEDIA_TYPE)

    @app.post("/generate", response_model=GenerateResponse)
    async def generate(request: Request) -> object:
        body = unpack(await request.body(), GenerateRequest)
        return await _unless_gone(request, serving.generate(body))

    @app.post("/generate/stream", response_model=None)
    async def stream(request: Request) -> Response:
        body = unpack(await request.body(), GenerateRequest)
        parts = serving.stream(body)
        # What is refused before the first token has its own status.
        first = await _unless_gone(request, anext(parts))
        if isinstance(first, Response):
            return first
        return StreamingResponse(_lines(first, parts), media_type=LINES)

    @app.post("/embed", response_model=EmbedResponse)
    async def embed(request: Request) -> object:
        body = unpack(await request.body(), EmbedRequest)
        return await _unless_gone(request, serving.embed(body))

    return app


async def _lines(
    first: GenerateDelta | GenerateResponse,
    others: AsyncGenerator[GenerateDelta | GenerateResponse, None],
) -> AsyncIterator[bytes]:
    """The parts of an answer as lines; an error is the last one."""
    async with aclosing(others):
        yield _line(first)
        try:
            async for part in others:
                yield _line(part)
        except Exception as error:  # noqa: BLE001 - the status is long gone
            yield _line(_body_of(_public_error(error)))


def _line(part: GenerateDelta | GenerateResponse | ErrorBody) -> bytes:
    name = {GenerateDelta: "delta", GenerateResponse: "answer", ErrorBody: "error"}[type(part)]
    line = StreamLine.model_validate({name: part})
    return line.model_dump_json(exclude_none=True).encode() + b"\n"


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
