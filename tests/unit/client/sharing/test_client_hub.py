"""The hub's package as a program finds it that has imported nothing else of it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from vlibrary_client import VLibraryError
from vlibrary_client.calls.sharing import pull_folder
try:
    pull_folder("me/gears")
except VLibraryError as error:
    print(error)
"""


def test_its_errors_are_ours_in_a_fresh_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "HF_HUB_OFFLINE" in found.stdout
