from pathlib import Path

import pytest

from app.core.errors import ConfigurationError
from app.postgres import binaries
from app.postgres.dumps import DUMP, RESTORE, find_program


def client_programs(folder: Path, version: str) -> Path:
    """What a package of clients installs: no server is among it."""
    folder.mkdir(parents=True)
    for name in (DUMP, RESTORE):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return folder


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder of Postgres, without a bundled package and nothing on the path."""
    monkeypatch.setattr(binaries, "PACKAGE", "no_such_package")
    monkeypatch.setattr(binaries, "SYSTEM_PREFIX", tmp_path / "postgresql")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path / "postgresql"


def test_clients_alone_are_enough(system: Path) -> None:
    folder = client_programs(system / "18" / "bin", "18.1")
    assert find_program(DUMP, server_major=18) == folder / DUMP


def test_the_version_nearest_to_the_servers_is_taken(system: Path) -> None:
    for version in ("15.4", "17.2", "18.1"):
        client_programs(system / version.partition(".")[0] / "bin", version)
    for major, wanted in ((14, "15"), (15, "15"), (16, "17"), (18, "18")):
        assert find_program(RESTORE, server_major=major) == system / wanted / "bin" / RESTORE


def test_one_on_the_path_is_found(system: Path, tmp_path: Path) -> None:
    client_programs(system / "15" / "bin", "15.4")
    folder = client_programs(tmp_path / "path", "18.1")
    assert find_program(DUMP, server_major=18) == folder / DUMP


def test_what_is_too_old_is_told_with_what_to_install(system: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"wanted version 18 or newer, found none"):
        find_program(DUMP, server_major=18)
    folder = client_programs(system / "15" / "bin", "15.4")
    with pytest.raises(
        ConfigurationError, match=r"found 15\.4 in .*postgresql-client-18"
    ) as caught:
        find_program(DUMP, server_major=18)
    assert str(folder) in caught.value.message
    # The setting is the only place that counts.
    with pytest.raises(ConfigurationError, match="found none"):
        find_program(DUMP, server_major=15, pg_bin=tmp_path)
