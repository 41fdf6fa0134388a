import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.servers.installation import ROOT, Installation, processes_about, save_tiny_backbone
from tests.fakes.waiting import wait_until

FAILPOINTS = ROOT / "tests" / "kill" / "failpoints"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A service whose processes can be killed at failpoints, armed in its folder `armed`."""
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    (folder / "armed").mkdir()
    made = Installation(
        folder,
        save_tiny_backbone(tmp_path / "tiny"),
        variables={
            "PYTHONPATH": os.pathsep.join(map(str, (FAILPOINTS, ROOT))),
            "VLIBRARY_FAILPOINTS": str(folder / "armed"),
            # A worker that is killed again and again is no reason to give a job up here.
            "VLIBRARY_JOB_MAX_ATTEMPTS": "100000",
            "VLIBRARY_LOG_LEVEL": "error",
        },
    )
    yield made
    made.end()
    wait_until(lambda: not processes_about(folder))
    shutil.rmtree(folder)
