"""One trace from the caller through the api to the worker, with nothing private in it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import propagate
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from app.api.app import create_api
from app.core.settings import Settings
from app.core.telemetry.spans import provider_for
from app.core.telemetry.tracing import telemetry
from app.library.database import make_engine
from app.main import make_services
from app.rpc.client import WorkerClient
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio

NOWHERE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TYPED = {
    "traceparent": f"00-{TRACE}-{PARENT}-01",
    "tracestate": "key=PRIVATE",
    "baggage": "key=PRIVATE",
}


class _Watching(httpx.AsyncBaseTransport):
    """Keeps the headers of what an app is asked to answer."""

    def __init__(self, app: FastAPI) -> None:
        self.seen: list[httpx.Headers] = []
        self._inner = httpx.ASGITransport(app=app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.seen.append(request.headers)
        return await self._inner.handle_async_request(request)


@dataclass
class _Traced:
    """An api and a worker whose spans are kept."""

    exporter: InMemorySpanExporter
    provider: TracerProvider
    http: httpx.AsyncClient
    seen: list[httpx.Headers]

    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


@pytest.fixture
def traced(settings: Settings) -> Iterator[_Traced]:
    before = propagate.get_global_textmap()
    exporter = InMemorySpanExporter()
    provider = provider_for(SimpleSpanProcessor(exporter), service="test")
    worker = FakeWorker()
    worker_app = FastAPI(telemetry=telemetry(provider))
    worker_app.include_router(worker.app().router)
    watching = _Watching(worker_app)
    client = WorkerClient(["http://worker"], transport=watching)
    services = make_services(settings, engine=make_engine(NOWHERE), workers=client)
    transport = httpx.ASGITransport(app=create_api(services, tracing=provider))
    http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    yield _Traced(exporter, provider, http, watching.seen)
    provider.shutdown()
    propagate.set_global_textmap(before)


async def test_the_workers_span_is_a_child_of_the_apis(traced: _Traced) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = await traced.http.post("/steer/generate", json={"prompt": "q"}, headers=headers)
    assert answer.status_code == 200
    of_api, of_worker = traced.spans()
    assert (of_api.name, of_worker.name) == ("POST /steer/generate", "POST /generate")
    assert of_api.kind == of_worker.kind == SpanKind.SERVER
    assert of_api.parent is not None
    assert of_worker.parent is not None
    assert of_api.context is not None
    assert of_worker.context is not None
    assert f"{of_api.context.trace_id:032x}" == f"{of_worker.context.trace_id:032x}" == TRACE
    assert f"{of_api.parent.span_id:016x}" == PARENT
    assert of_worker.parent.span_id == of_api.context.span_id


async def test_requests_do_not_share_a_trace(traced: _Traced) -> None:
    for _ in range(2):
        await traced.http.post("/steer/generate", json={"prompt": "q"})
    traces = {span.context.trace_id for span in traced.spans() if span.context is not None}
    assert len(traces) == 2


@pytest.mark.parametrize(
    "call",
    [
        {"url": "/steer/generate?key=PRIVATE", "json": {"prompt": "PRIVATE"}},
        {"url": "/steer/generate", "json": {"prompt": 5, "PRIVATE": "PRIVATE"}},
        {"url": "/steer/generate", "json": {"prompt": "q", "images": ["PRIVATE"]}},
        {"url": "/vectors/PRIVATE", "method": "GET"},
        {"url": "/PRIVATE", "method": "PRIVATE"},
    ],
    ids=["query", "validation", "image", "name", "unknown"],
)
async def test_nothing_private_is_in_a_span(traced: _Traced, call: dict[str, Any]) -> None:
    headers = {"authorization": "Bearer PRIVATE", **TYPED}
    await traced.http.request(**{"method": "POST", "headers": headers, **call})
    assert traced.spans()
    for span in traced.spans():
        assert "PRIVATE" not in span.to_json(), span.to_json()
        assert span.resource.attributes["service.name"] == "test"
    for sent in traced.seen:
        assert not [value for value in sent.values() if "PRIVATE" in value]


async def test_the_worker_is_told_of_the_trace_and_nothing_else(traced: _Traced) -> None:
    answer = await traced.http.post("/steer/generate", json={"prompt": "q"}, headers=TYPED)
    assert answer.status_code == 200
    (headers,) = traced.seen
    of_api, _ = traced.spans()
    assert of_api.context is not None
    assert headers["traceparent"] == f"00-{TRACE}-{of_api.context.span_id:016x}-01"
    assert not headers.keys() & {"tracestate", "baggage"}


@pytest.mark.parametrize("parent", ["", "PRIVATE", f"00-{'0' * 32}-{PARENT}-01", "0" * 1000])
async def test_a_broken_parent_begins_a_trace(traced: _Traced, parent: str) -> None:
    headers = {"traceparent": parent}
    await traced.http.post("/steer/generate", json={"prompt": "q"}, headers=headers)
    of_api, of_worker = traced.spans()
    assert of_api.parent is None
    assert of_worker.parent is not None


async def test_the_host_of_a_request_is_not_in_a_span(traced: _Traced) -> None:
    await traced.http.post("/steer/generate", json={"prompt": "q"}, headers={"host": "PRIVATE:5"})
    assert traced.spans()
    for span in traced.spans():
        assert "private" not in span.to_json().lower(), span.to_json()


async def test_questions_of_machines_are_not_traced(traced: _Traced) -> None:
    for path in ("/livez", "/metrics", "/readyz", "/backbones"):
        await traced.http.get(path)
    assert [span.name for span in traced.spans()] == ["GET /backbones"]


async def test_without_a_provider_the_worker_is_told_of_no_trace(settings: Settings) -> None:
    watching = _Watching(FakeWorker().app())
    client = WorkerClient(["http://worker"], transport=watching)
    services = make_services(settings, engine=make_engine(NOWHERE), workers=client)
    transport = httpx.ASGITransport(app=create_api(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.post(
            "/steer/generate",
            content=json.dumps({"prompt": "q"}),
            headers={"content-type": "application/json", **TYPED},
        )
    assert answer.status_code == 200
    (headers,) = watching.seen
    assert not headers.keys() & {"traceparent", "tracestate", "baggage"}
