"""A running api whose library has a few vectors, and a client of it."""

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.library.database import make_engine, session_factory
from app.main import create_app
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.training import store_vector
from vlibrary_client import Client


@pytest.fixture
def live_api(settings: Settings, worker: FakeWorker) -> FastAPI:
    return create_app(settings, workers=worker.client())


@pytest.fixture
def stored_names() -> list[str]:
    """What the vectors are called, each with another seed."""
    return ["gears", "gears", "colours"]


@pytest.fixture
def url(
    live_api: FastAPI, worker: FakeWorker, *, database: str, stored_names: list[str]
) -> Iterator[str]:
    async def store() -> None:
        engine = make_engine(database)
        for seed, name in enumerate(stored_names):
            await store_vector(session_factory(engine), worker.description, name=name, seed=seed)
        await engine.dispose()

    with serving(live_api) as address:
        asyncio.run(store())
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=120.0, max_retries=0) as opened:
        yield opened
