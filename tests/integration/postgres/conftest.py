import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.postgres.server import EmbeddedPostgres


@pytest.fixture
def folder(pristine: Path, open_folder: Path) -> Path:
    """A copy of the pristine folder."""
    target = open_folder / "postgres"
    subprocess.run(["/bin/cp", "-a", pristine, target], check=True)  # noqa: S603 - our own folders
    return target


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(folder)
    yield made
    made.stop()


@pytest.fixture
def fresh(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server whose folder does not exist yet."""
    made = EmbeddedPostgres(open_folder / "fresh")
    yield made
    made.stop()
