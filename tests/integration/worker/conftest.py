from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.telemetry.logs import configure_logs
from app.method.backbone.loading import Backbone
from tests.fakes.models.backbones import tiny_backbone
from tests.fakes.shop import Sessions, Shop, open_shop


@pytest.fixture(scope="module", autouse=True)
def quiet_logs() -> None:
    """Failures that tests provoke would otherwise be rendered at length."""
    configure_logs("critical")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
async def shop(backbone: Backbone, sessions: Sessions, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(backbone, sessions, tmp_path) as made:
        yield made
