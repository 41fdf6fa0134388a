import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from app.core.errors import ConfigurationError
from app.postgres import binaries
from app.postgres.binaries import (
    find_installation,
    make_runnable,
    may_enter,
    run_as,
    unprivileged_account,
    version_of,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that every account may enter."""
    folder = Path(mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def fake_programs(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for name in binaries.PROGRAMS:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return folder


def major_of(folder: Path) -> int:
    version = version_of(folder / "postgres")
    assert version is not None
    return version[0]


def test_the_bundled_server_is_found_and_is_new_enough() -> None:
    found = find_installation()
    assert major_of(found) >= 18
    assert (found / "initdb").exists()


def test_the_setting_is_the_only_place_that_counts(tmp_path: Path) -> None:
    folder = fake_programs(tmp_path / "bin", "17.2")
    assert find_installation(folder) == folder
    assert version_of(folder / "postgres") == (17, 2)
    with pytest.raises(ConfigurationError, match="wanted version 18"):
        find_installation(folder, major=18)
    with pytest.raises(ConfigurationError, match="unusable"):
        find_installation(tmp_path / "nothing")


@pytest.mark.parametrize("version", ["13.9", "nonsense"])
def test_an_old_or_odd_server_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigurationError):
        find_installation(fake_programs(tmp_path / "bin", version))


def test_data_of_an_older_version_gets_its_own_server() -> None:
    assert major_of(find_installation(major=16)) == 16


def test_who_is_not_root_stays_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged_account() is None


def test_root_becomes_the_first_known_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(binaries, "ACCOUNT_NAMES", ("no-such-user", "root", "nobody"))
    assert unprivileged_account() == nobody()
    monkeypatch.setattr(binaries, "ACCOUNT_NAMES", ("no-such-user",))
    with pytest.raises(ConfigurationError, match="no-such-user"):
        unprivileged_account()


def test_a_command_gets_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    assert "PGPORT" not in run_as(None, "/usr/bin/env").stdout


def test_an_installation_of_ones_own_is_used_as_it_is(tmp_path: Path) -> None:
    found = find_installation(fake_programs(tmp_path / "bin", "18.1"))
    assert make_runnable(found, account=None, folder=tmp_path) == found


@as_root
def test_a_closed_folder_is_noticed(passable: Path) -> None:
    inner = passable / "closed" / "inner"
    inner.mkdir(parents=True)
    assert may_enter(nobody(), inner)
    inner.parent.chmod(0o700)
    assert not may_enter(nobody(), inner)
    assert may_enter(None, inner)


@as_root
def test_programs_behind_a_closed_folder_are_copied_once(passable: Path) -> None:
    prefix = passable / "closed" / "package" / "pginstall"
    bin_dir = fake_programs(prefix / "bin", "18.1")
    (prefix / "lib").mkdir()
    (prefix / "lib" / "plugin.so").write_bytes(b"1")
    (prefix / "lib" / "plugin.a").write_bytes(b"1")
    (prefix / "share").mkdir()
    (prefix / "share" / "link").symlink_to("elsewhere")
    libraries = passable / "closed" / "package.libs"
    libraries.mkdir()
    (libraries / "libpq.so").write_bytes(b"1")
    (passable / "closed").chmod(0o700)
    target = passable / "data"
    target.mkdir()
    (target / "server-18.1.new").mkdir()
    found = find_installation(bin_dir)
    copied = make_runnable(found, account=nobody(), folder=target)
    assert copied == target / "server-18.1" / "package" / "pginstall" / "bin"
    assert run_as(nobody(), copied / "postgres").returncode == 0
    assert (target / "server-18.1" / "package.libs" / "libpq.so").exists()
    assert (copied.parent / "lib" / "plugin.so").exists()
    assert not (copied.parent / "lib" / "plugin.a").exists()
    assert not (target / "server-18.1.new").exists()
    assert (passable / "closed").stat().st_mode & 0o077 == 0
    marker = copied / "marker"
    marker.touch()
    assert make_runnable(found, account=nobody(), folder=target) == copied
    assert marker.exists()


@as_root
def test_a_copy_that_cannot_be_run_either_is_an_error(passable: Path) -> None:
    prefix = passable / "closed" / "package" / "pginstall"
    bin_dir = fake_programs(prefix / "bin", "18.1")
    for name in ("lib", "share"):
        (prefix / name).mkdir()
    (passable / "closed").chmod(0o700)
    with pytest.raises(ConfigurationError, match="nobody"):
        make_runnable(find_installation(bin_dir), account=nobody(), folder=passable / "closed")
