from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.api.app import create_api
from app.api.dependencies import Services
from app.core.settings import Settings
from app.library.database import make_engine
from app.main import make_services
from tests.fakes.servers.worker import FakeWorker

NOWHERE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return Settings(
        data_dir=tmp_path,
        max_image_pixels=10_000,
        max_image_bytes=100_000,
        max_image_side=1000,
        max_images=2,
        max_body_bytes=1_000_000,
        max_new_tokens_limit=64,
        request_timeout_seconds=120.0,
    )


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def services(settings: Settings, worker: FakeWorker) -> Services:
    """Everything but a database: what needs one finds it away."""
    return make_services(settings, engine=make_engine(NOWHERE), workers=worker.client())


@pytest.fixture
def api(services: Services) -> FastAPI:
    return create_api(services)


@pytest.fixture
async def http(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client
