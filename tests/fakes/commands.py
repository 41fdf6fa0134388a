"""Commands of our own pages, run to their end."""

import os
import subprocess
import sys
from pathlib import Path

LONG_SECONDS = 1200.0


def run(command: list[str], folder: Path, **variables: str) -> str:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # noqa: TID251
    found = subprocess.run(  # noqa: S603 - our pages' own lines
        command,
        cwd=folder,
        env={**os.environ, "PATH": programs, **variables},  # noqa: TID251
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_SECONDS,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
