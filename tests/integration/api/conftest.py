from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.main import create_app
from tests.fakes.servers.worker import FakeWorker


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database,
            "data_dir": tmp_path,
            "max_upload_bytes": 200_000,
            "job_stalled_seconds": 3600,
            "request_timeout_seconds": 120,
        }
    )


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
async def api(settings: Settings, worker: FakeWorker) -> AsyncIterator[FastAPI]:
    app = create_app(settings, workers=worker.client())
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def http(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
