import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.servers.installation import Installation

SECONDS = 180.0


@pytest.fixture(scope="session")
def service() -> Iterator[Installation]:
    """One fresh `vlibrary serve` with the pocket LVLM, for all cases."""
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-cases-", dir="/tmp"))
    folder.chmod(0o711)
    installation = Installation(folder, Path("pocket"))
    installation.start().close()
    yield installation
    installation.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def http(service: Installation) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=SECONDS, trust_env=False) as client:
        yield client
