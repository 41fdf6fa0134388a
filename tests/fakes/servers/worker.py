"""A worker without a backbone: speaks the wire, remembers what it was asked, can misbehave."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from app.core.backbones import BackboneDescription
from app.rpc.client import WorkerClient
from app.rpc.generation import (
    AppliedVector,
    BaselineAnswer,
    GenerateDelta,
    GenerateResponse,
    Receipt,
    Timings,
    TokenLogprob,
    TokenLogprobs,
    Usage,
)
from app.rpc.messages import (
    EmbedRequest,
    EmbedResponse,
    ErrorBody,
    GenerateRequest,
    HealthResponse,
    StreamLine,
    unpack,
)

URL = "http://worker"
SPACE = "fake-space"
DIMENSION = 16
LINES = "application/x-ndjson"


def backbone(digit: str = "a", *, num_layers: int = 2, hidden_size: int = 8) -> BackboneDescription:
    return BackboneDescription(
        fingerprint=digit * 64,
        name=f"fake-{digit}",
        architecture="FakeForConditionalGeneration",
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=2,
        vocab_size=100,
    )


def embedding_of(image: bytes | None, question: str | None) -> list[float]:
    """The same unit vector for the same query, and nearly orthogonal ones for different queries."""
    digest = hashlib.sha256((image or b"-") + (question or "-").encode()).digest()
    values = np.random.default_rng(list(digest)).standard_normal(DIMENSION)
    return [float(value) for value in values / np.linalg.norm(values)]


@dataclass
class FakeWorker:
    """What it answers, and what it was asked.

    `forget_vectors`, `sites_hit` and `error` make it misbehave; while `is_stuck`, answers wait for
    `released` (streamed ones before their delta `sticks_at`). `breaks_after` deltas a stream ends
    as if the worker had died; while it `is_silent` it takes requests and says nothing.
    """

    description: BackboneDescription = field(default_factory=backbone)
    space: str = SPACE
    status: Any = "ready"
    role: Any = "both"
    is_stuck: bool = False
    sticks_at: int = 1
    breaks_after: int | None = None
    forget_vectors: bool = False
    sites_hit: int | None = None
    error: ErrorBody | None = None
    is_down: bool = False
    is_silent: bool = False
    generated: list[GenerateRequest] = field(default_factory=list)
    embedded: list[EmbedRequest] = field(default_factory=list)
    running: int = 0
    num_cancelled: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _loop: asyncio.AbstractEventLoop | None = None

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/health", self.health, methods=["GET"], response_model=None)
        app.add_api_route("/generate", self.generate, methods=["POST"], response_model=None)
        app.add_api_route("/embed", self.embed, methods=["POST"], response_model=None)
        return app

    def client(self) -> WorkerClient:
        return WorkerClient([URL], transport=_Transport(self))

    def _error(self) -> Response | None:
        if self.error is None:
            return None
        return Response(self.error.model_dump_json(), 503, media_type="application/json")

    async def health(self) -> Response:
        body = HealthResponse(
            status=self.status,
            backbone=self.description,
            space=self.space,
            running=self.running,
            waiting=0,
            role=self.role,
        )
        return Response(body.model_dump_json(), media_type="application/json")

    async def embed(self, http_request: Request) -> Response:
        request = unpack(await http_request.body(), EmbedRequest)
        self.embedded.append(request)
        if (error := self._error()) is not None:
            return error
        rows = zip(request.images, request.questions, strict=True)
        body = EmbedResponse(
            space=self.space,
            dim=DIMENSION,
            embeddings=tuple(tuple(embedding_of(image, question)) for image, question in rows),
            num_tokens=sum(len(question or "") for question in request.questions),
        )
        return Response(body.model_dump_json(), media_type="application/json")

    async def generate(self, http_request: Request) -> Response:
        request = unpack(await http_request.body(), GenerateRequest)
        self.generated.append(request)
        if (error := self._error()) is not None:
            return error
        if request.stream:
            return StreamingResponse(self._lines(request), media_type=LINES)
        async with self._admit():
            if self.is_stuck:
                await self.released.wait()
        return Response(_line(self._answer(request)), media_type=LINES)

    async def _lines(self, request: GenerateRequest) -> AsyncIterator[bytes]:
        answer = self._answer(request)
        self._loop = asyncio.get_running_loop()
        async with self._admit():
            for index, character in enumerate(answer.text):
                if index == self.sticks_at and self.is_stuck:
                    await self.released.wait()
                if index == self.breaks_after:
                    return
                logprobs = answer.logprobs[:1] if answer.logprobs and not index else None
                delta = GenerateDelta(text=character, token_ids=(index,), logprobs=logprobs)
                yield _line(delta)
            yield _line(answer)

    def release(self) -> None:
        """Let answers go on, those that are still to come as well; from any thread."""
        self.is_stuck = False
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.released.set)

    @asynccontextmanager
    async def _admit(self) -> AsyncIterator[None]:
        self.running += 1
        async with self._changed:
            self._changed.notify_all()
        try:
            yield
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.running -= 1

    async def wait_until_running(self, number: int) -> None:
        async with self._changed, asyncio.timeout(120):
            await self._changed.wait_for(lambda: self.running >= number)

    def _answer(self, request: GenerateRequest) -> GenerateResponse:
        vectors = () if self.forget_vectors else request.vectors
        num_sites = self.description.num_sites if vectors else 0
        usage = Usage(prompt_tokens=7, completion_tokens=2)
        steered = "+".join(f"{use.name}@{use.version}*{use.strength:g}" for use in vectors)
        return GenerateResponse(
            text=steered or "plain",
            token_ids=(1, 2),
            finish_reason="stop",
            usage=usage,
            receipt=Receipt(
                vectors=tuple(
                    AppliedVector(sha256=use.sha256, strength=use.strength) for use in vectors
                ),
                sites_hit=num_sites if self.sites_hit is None else self.sites_hit,
                sites_expected=num_sites,
                num_forwards=2,
                kl_first_token=0.25 if request.baseline else None,
                dose=0.5 if vectors else None,
            ),
            baseline=BaselineAnswer(
                text="plain", token_ids=(1,), finish_reason="length", usage=usage
            )
            if request.baseline
            else None,
            logprobs=None if request.logprobs is None else _logprobs(request.logprobs),
            timings=Timings(queue_ms=0, prefill_ms=1, decode_ms=1, total_ms=2),
            max_tokens=request.max_tokens,
        )


def _logprobs(top_logprobs: int) -> tuple[TokenLogprobs, ...]:
    top = tuple(
        TokenLogprob(token_id=index, text=chr(97 + index), logprob=-1.0 - index)
        for index in range(top_logprobs)
    )
    return (TokenLogprobs(token_id=1, text="a", logprob=-1.0, top=top),)


def _line(line: StreamLine) -> bytes:
    return line.model_dump_json().encode() + b"\n"


def client_of(workers: Mapping[str, FakeWorker]) -> WorkerClient:
    """A client of several workers by their URLs, each at a host of its own."""
    transports = {httpx.URL(url).host: _Transport(worker) for url, worker in workers.items()}
    return WorkerClient(list(workers), transport=_Hosts(transports))


class _Hosts(httpx.AsyncBaseTransport):
    """Transports by the host of a request."""

    def __init__(self, transports: Mapping[str, httpx.AsyncBaseTransport]) -> None:
        self._transports = transports

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transports[request.url.host].handle_async_request(request)


class _Transport(httpx.AsyncBaseTransport):
    """The worker's app without a network; while it is down connections are refused."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker
        self._asgi = httpx.ASGITransport(app=worker.app())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._worker.is_down:
            raise httpx.ConnectError("refused")
        if self._worker.is_silent:
            await asyncio.Event().wait()
        return await self._asgi.handle_async_request(request)
