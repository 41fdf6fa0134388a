import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.servers.installation import Installation, processes_about, save_tiny_backbone
from tests.fakes.waiting import wait_until


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_backbone(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def installation(tiny_checkpoint: Path) -> Iterator[Installation]:
    # Postgres may run as another account, which cannot enter pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    made = Installation(folder, tiny_checkpoint)
    yield made
    made.end()
    wait_until(lambda: not processes_about(folder))
    shutil.rmtree(folder)
