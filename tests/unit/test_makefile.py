import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    help_text = subprocess.run(
        ["make", "--no-print-directory", "help"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    listed = re.findall(r"^ +make (\S+) +\S", help_text, re.MULTILINE)
    assert sorted(listed) == sorted(targets)


def make(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements").mkdir()
    (folder / "requirements" / "constraints.txt").touch()
    (folder / "pyproject.toml").touch()
    (folder / "more.mk").write_text("show:\n\t@echo user $$PIP_USER\n")
    return subprocess.run(  # noqa: S603 - our own Makefile
        ["make", "--no-print-directory", "-f", "Makefile", "-f", "more.mk", *words],  # noqa: S607
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PIP_USER": "1"},  # noqa: TID251 - pip's
    )  # fmt: skip


def test_a_python_that_is_too_old_is_told_before_anything_is_made(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    # With `-c` and the code, as the Makefile calls it.
    pretend = "import sys; sys.version_info = (3, 9, 2); exec(sys.argv[2])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$@"\n')
    old.chmod(0o755)
    found = make(tmp_path, "demo", f"PYTHON={old}")
    assert found.returncode != 0
    assert "wanted Python 3.11 or newer, found 3.9 (" in found.stderr
    assert not (tmp_path / ".venv").exists()


def test_pip_installs_for_no_user_even_where_it_is_told_to(tmp_path: Path) -> None:
    assert make(tmp_path, "show").stdout == "user 0\n"
