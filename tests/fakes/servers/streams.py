"""Streamed answers as tests read them, and a worker behind a socket of its own."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from httpx_sse import EventSource

from app.api.app import create_api
from app.api.dependencies import Services
from app.rpc.client import WorkerClient
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker


def events_in(body: bytes) -> list[tuple[str, Any]]:
    """Kinds and contents of a body's events; text that is no JSON stays text."""
    sent = httpx.Response(200, content=body, headers={"content-type": "text/event-stream"})
    events = EventSource(sent).iter_sse()
    return [(event.event, _content(event.data)) for event in events if event.data]


def _content(data: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(data)
    except ValueError:
        return data


@contextmanager
def live_worker(worker: FakeWorker) -> Iterator[WorkerClient]:
    """A client of the worker behind a real socket, over which answers come piece by piece."""
    with serving(worker.app()) as url:
        yield WorkerClient([url])


@contextmanager
def live_api(services: Services) -> Iterator[str]:
    """The address of an api that closes its connections to workers when it ends."""

    @asynccontextmanager
    async def lifespan(_api: FastAPI) -> AsyncIterator[None]:
        async with services.workers:
            yield

    with serving(create_api(services, lifespan=lifespan)) as address:
        yield address
