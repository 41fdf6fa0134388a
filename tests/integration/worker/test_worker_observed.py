"""A whole worker as it is composed: what it shows, and where its traces go."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from app.method.backbone.loading import Backbone
from app.rpc.client import WorkerClient
from app.rpc.messages import GenerateRequest
from app.worker.process import running_worker
from tests.fakes.answers import answer_of
from tests.fakes.exposition import parse_metrics

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(request_id="r", prompt="PRIVATE what color?", max_tokens=3)


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"database_url": database, "data_dir": tmp_path, "worker_role": "serve"}
    )


@asynccontextmanager
async def _transport(settings: Settings, backbone: Backbone) -> AsyncIterator[httpx.ASGITransport]:
    async with running_worker(settings, lambda: backbone, on_broken=lambda: None) as (app, _):
        yield httpx.ASGITransport(app=app)


@asynccontextmanager
async def _client(settings: Settings, backbone: Backbone) -> AsyncIterator[WorkerClient]:
    async with (
        _transport(settings, backbone) as transport,
        WorkerClient(["http://worker"], transport=transport) as client,
    ):
        yield client


async def test_a_worker_shows_its_metrics(settings: Settings, backbone: Backbone) -> None:
    async with (
        _transport(settings, backbone) as transport,
        WorkerClient(["http://worker"], transport=transport) as client,
        httpx.AsyncClient(base_url="http://worker", transport=transport) as http,
    ):
        await answer_of(client, REQUEST)
        shown = parse_metrics((await http.get("/metrics")).text)
    assert shown["vlibrary_e2e_request_latency_seconds_count"] == 1
    assert shown["vlibrary_vector_cache_slots"] == settings.vector_cache_slots
    assert shown["vlibrary_num_requests_running"] == 0


class _Collector(HTTPServer):
    """Takes traces and keeps them as they came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.received: list[tuple[str, bytes]] = []


class _Taking(BaseHTTPRequestHandler):
    server: _Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - of no interest here
        pass


async def test_traces_are_sent_to_the_collector_by_the_end(
    settings: Settings, backbone: Backbone
) -> None:
    with _Collector() as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        traced = settings.model_copy(update={"otlp_endpoint": endpoint})
        async with _client(traced, backbone) as client:
            await answer_of(client, REQUEST)
        collector.shutdown()
    ((path, _),) = collector.received
    assert path == "/v1/traces"
