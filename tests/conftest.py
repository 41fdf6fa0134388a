import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are slow now and then; no test is about the time that it takes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# xdist's processes ignore Ctrl-C, and so would everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration file, which is not there yet; nothing tells of a server."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("VLIBRARY_URL", "VLIBRARY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "vlibrary").mkdir()
    return tmp_path / "vlibrary" / "config.toml"
