"""Where data and caches lie when no setting says otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.core.errors import ConfigurationError

ROOT_DATA_DIR: Final = Path("/var/lib/vlibrary")


def default_data_dir() -> Path:
    """The folder of all state.

    Root keeps it outside of its home, because Postgres runs as an unprivileged user that could not
    enter there.

    Raises:
        ConfigurationError: The user has no home.
    """
    if os.geteuid() == 0:
        return ROOT_DATA_DIR
    return _below_home("XDG_DATA_HOME", ".local/share", instead="VLIBRARY_DATA_DIR")


def scratch_dir(data_dir: Path) -> Path:
    """Where files lie while they are received or read.

    Not with the system's temporary files, which a container or laptop often keeps in memory.
    """
    return data_dir / "scratch"


@contextmanager
def making_folders() -> Iterator[None]:
    """Makes folders below that of all state in the block.

    Raises:
        ConfigurationError: One cannot be made.
    """
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"cannot make {error.filename}: {error.strerror}; VLIBRARY_DATA_DIR names another place"
        ) from error


def default_cache_dir() -> Path:
    """The folder of what can be computed again.

    Raises:
        ConfigurationError: The user has no home.
    """
    return _below_home("XDG_CACHE_HOME", ".cache", instead="XDG_CACHE_HOME")


def _below_home(variable: str, usual: str, *, instead: str) -> Path:
    if found := os.environ.get(variable):
        return Path(found) / "vlibrary"
    try:
        return Path.home() / usual / "vlibrary"
    except RuntimeError:
        raise ConfigurationError(
            f"wanted a home folder, found none for the user {os.geteuid()}: set HOME or {instead}"
        ) from None
