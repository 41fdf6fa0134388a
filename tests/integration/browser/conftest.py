"""A server with a fake worker, and a page of Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.settings import Settings
from app.main import create_app
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker
from tests.integration.browser.chromium import Page, browsing


@pytest.fixture
def url(database: str, tmp_path: Path) -> Iterator[str]:
    settings = Settings.model_validate({"database_url": database, "data_dir": tmp_path / "data"})
    with serving(create_app(settings, workers=FakeWorker().client())) as served:
        yield served


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browsing(tmp_path / "profile") as opened:
        yield opened
