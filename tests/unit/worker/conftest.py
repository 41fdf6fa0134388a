import pytest

from app.core.logs import configure_logs
from app.method.backbone import Backbone
from tests.fakes.backbones import tiny_backbone


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    """Failures that tests provoke would otherwise be rendered at length."""
    configure_logs("critical")
