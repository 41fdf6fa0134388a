import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.processes.ports import free_port
from tests.fakes.servers.installation import Installation

SECONDS = 180.0
WORKER_SECRET = secrets.token_urlsafe(32)


@pytest.fixture(scope="session")
def worker_port() -> int:
    """Where the service's worker shows its metrics to whoever has `WORKER_SECRET`."""
    return free_port("127.0.0.1")


@pytest.fixture(scope="session")
def service(worker_port: int) -> Iterator[Installation]:
    """One fresh `vlibrary serve` with the pocket LVLM, for all cases."""
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-cases-", dir="/tmp"))
    folder.chmod(0o711)
    worker = {"VLIBRARY_WORKER_PORT": str(worker_port), "VLIBRARY_WORKER_SECRET": WORKER_SECRET}
    installation = Installation(folder, Path("pocket"), variables=worker)
    installation.start().close()
    yield installation
    installation.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def http(service: Installation) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=SECONDS, trust_env=False) as client:
        yield client


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table of the scripts, and how each ended."""
    rows = [
        (properties["script"], properties.get("ended", "FAILED"))
        for reports in terminalreporter.stats.values()
        for report in reports
        if "script" in (properties := dict(getattr(report, "user_properties", ())))
        and getattr(report, "when", "") == "call"
    ]
    if rows:
        terminalreporter.section("scripts")
    for script, ended in sorted(rows):
        terminalreporter.write_line(f"{script:44} {ended}")
