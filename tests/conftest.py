import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

# Machines are slow now and then; no test is about the time that it takes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# xdist's processes ignore Ctrl-C, and so would everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Leaves logs as they were before a test: a command in this process sets them up for itself."""
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    result = yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**structured)
    return result


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration file, which is not there yet; nothing tells of a server."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("VLIBRARY_URL", "VLIBRARY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "vlibrary").mkdir()
    return tmp_path / "vlibrary" / "config.toml"
