import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import torch

from app.core.telemetry.logs import configure_logs
from app.library.storage import ObjectStore
from app.method.backbone.loading import Backbone
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from tests.fakes.files.parquet import write_parquet
from tests.fakes.models.backbones import tiny_backbone, tiny_examples
from tests.fakes.servers.serving import Parts, running_parts


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


@pytest.fixture
def three_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.fixture
async def objects(tmp_path: Path) -> ObjectStore:
    store = ObjectStore((tmp_path / "objects").as_uri())
    path = write_parquet(tmp_path / "colours.parquet", tiny_examples(12))
    await store.put_file("datasets/colours.parquet", path)
    await store.put_file("datasets/other.parquet", path)
    return store


@pytest.fixture
async def parts(backbone: Backbone, objects: ObjectStore) -> AsyncIterator[Parts]:
    async with running_parts(backbone, objects) as running:
        yield running


@pytest.fixture
def engine(backbone: Backbone) -> Iterator[Engine]:
    running = Engine(backbone, max_rows=8)
    yield running
    running.close()


@pytest.fixture
async def device(backbone: Backbone) -> AsyncIterator[DeviceThread]:
    engine = Engine(backbone, max_rows=4)
    running = DeviceThread(engine, training_share=0.5)
    running.start()
    yield running
    await asyncio.to_thread(running.stop)
    engine.close()
