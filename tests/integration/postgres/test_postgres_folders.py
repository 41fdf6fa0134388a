import os
import shutil
import socket
from pathlib import Path

import pytest

from app.core.errors import ConfigurationError, CorruptDataError, UnavailableError
from app.library.storage import ObjectStore
from app.postgres.binaries import find_installation
from app.postgres.data_dir import last_words, socket_folder
from app.postgres.server import EmbeddedPostgres
from tests.fakes.servers.postgres import ask

# As containers are run with by some platforms; no account of any system has it.
NAMELESS = 1_234_567


def test_only_its_user_can_reach_it(server: EmbeddedPostgres) -> None:
    server.start()
    for folder in (server.data_dir, server.data_dir / "pgdata", server.data_dir / "run"):
        assert folder.stat().st_mode & 0o077 == 0
    assert ask(server, "SHOW listen_addresses") == [("",)]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 5432)) != 0
    assert ask(server, "SHOW data_checksums") == [("on",)]
    assert ask(server, "SHOW fsync") == [("on",)]


def test_a_half_made_cluster_is_made_again(fresh: EmbeddedPostgres) -> None:
    unfinished = fresh.data_dir / "pgdata.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    fresh.start()
    assert not unfinished.exists()


def test_a_long_path_puts_the_socket_elsewhere(folder: Path, open_folder: Path) -> None:
    folder = folder.rename(open_folder / ("x" * 100))
    with EmbeddedPostgres(folder) as server:
        assert ask(server, "SELECT 1") == [(1,)]
        elsewhere = socket_folder(folder)
        assert elsewhere.parent != folder
        assert elsewhere.stat().st_mode & 0o077 == 0
    elsewhere.rmdir()


@pytest.mark.parametrize("name", ["two words+%20", "a,b"])
def test_odd_characters_in_the_path_do_no_harm(folder: Path, name: str) -> None:
    odd = folder.rename(folder.with_name(name))
    with EmbeddedPostgres(odd) as server:
        assert ask(server, "SELECT 1") == [(1,)]
        elsewhere = socket_folder(odd)
    if elsewhere.parent != odd:
        elsewhere.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone drops to another account")
def test_a_folder_that_its_account_cannot_reach_is_refused(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match="closed to others"):
        EmbeddedPostgres(closed / "postgres").start()
    assert closed.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone drops to another account")
def test_programs_in_a_closed_folder_are_run_from_a_copy(folder: Path, open_folder: Path) -> None:
    found = find_installation()
    package = found.parent.parent
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for part in ("bin", "lib", "share"):
        source = found.parent / part
        shutil.copytree(source, closed / package.name / found.parent.name / part)
    shutil.copytree(package.parent / f"{package.name}.libs", closed / f"{package.name}.libs")
    bin_dir = closed / package.name / found.parent.name / "bin"
    with EmbeddedPostgres(folder, pg_bin=bin_dir) as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
        assert program.is_relative_to(folder)
        assert ask(server, "SELECT 1") == [(1,)]
    assert closed.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(fresh: EmbeddedPostgres) -> None:
    fresh.data_dir.mkdir()
    os.chown(fresh.data_dir, NAMELESS, NAMELESS)
    with pytest.raises(ConfigurationError, match="another user"):
        fresh.start()


def test_something_else_than_a_folder_is_refused(fresh: EmbeddedPostgres) -> None:
    fresh.data_dir.mkdir()
    (fresh.data_dir / "run").write_text("x")
    with pytest.raises(ConfigurationError, match="Wanted a folder"):
        fresh.start()
    assert not fresh.is_running


def test_a_folder_that_cannot_be_made_is_told_with_what_to_set() -> None:
    # Nobody makes folders there.
    for make in (
        lambda: EmbeddedPostgres("/proc/a/b").start(),
        lambda: ObjectStore("file:///proc/a"),
    ):
        with pytest.raises(ConfigurationError, match=r"cannot make /proc/a: .*VLIBRARY_DATA_DIR"):
            make()


@pytest.mark.parametrize("name", ["owner.lock", "postgres.log"])
def test_a_link_in_the_folder_leads_to_no_file_elsewhere(
    server: EmbeddedPostgres, open_folder: Path, name: str
) -> None:
    # The folder belongs to the account of the server, and root opens files there.
    elsewhere = open_folder / "elsewhere"
    elsewhere.write_text("as it was")
    (server.data_dir / name).unlink(missing_ok=True)
    (server.data_dir / name).symlink_to(elsewhere)
    with pytest.raises(OSError, match=name):
        server.start()
    server.stop()
    assert elsewhere.read_text() == "as it was"


def test_data_of_an_unknown_version_are_left_alone(fresh: EmbeddedPostgres) -> None:
    version = fresh.data_dir / "pgdata" / "PG_VERSION"
    version.parent.mkdir(parents=True)
    version.write_text("9\n")
    with pytest.raises(ConfigurationError, match="wanted version 9"):
        fresh.start()
    assert version.read_text() == "9\n"


def test_a_failing_initdb_says_why(fresh: EmbeddedPostgres) -> None:
    folder = fresh.data_dir.parent / "bin"
    folder.mkdir()
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    for name in ("postgres", "initdb"):
        program = folder / name
        program.write_text(
            "#!/bin/sh\n[ $1 = --version ] && echo 'x (PostgreSQL) 18.1' && exit 0\n"
            "echo 'disk on fire' >&2\nexit 1\n"
        )
        program.chmod(0o755)
    with pytest.raises(ConfigurationError, match="disk on fire"):
        EmbeddedPostgres(fresh.data_dir, pg_bin=folder).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_a_name_is_told_what_to_do(fresh: EmbeddedPostgres) -> None:
    fresh.data_dir.mkdir()
    os.chown(fresh.data_dir, NAMELESS, NAMELESS)
    os.seteuid(NAMELESS)
    try:
        with pytest.raises(ConfigurationError) as caught:
            fresh.start()
    finally:
        os.seteuid(0)
    assert f"user {NAMELESS}" in caught.value.message
    assert "VLIBRARY_DATABASE_URL" in caught.value.message
    assert not (fresh.data_dir / "pgdata").exists()
    assert not fresh.is_running


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_data_that_a_copy_has_opened_to_others_is_closed_again(
    mode: int, server: EmbeddedPostgres
) -> None:
    pgdata = server.data_dir / "pgdata"
    pgdata.chmod(mode)
    server.start()
    assert ask(server, "SELECT 1") == [(1,)]
    assert pgdata.stat().st_mode & 0o777 == 0o700


def test_why_it_does_not_start_is_one_line_without_what_was_before(
    server: EmbeddedPostgres,
) -> None:
    log = server.data_dir / "postgres.log"
    log.write_text("2026-01-01 FATAL:  another time\n")
    with (server.data_dir / "pgdata" / "postgresql.auto.conf").open("a") as file:
        file.write("shared_buffers = nonsense\n")
    with pytest.raises(UnavailableError, match="ended while starting") as caught:
        server.start()
    message = caught.value.message
    assert "configuration file" in message
    assert message.endswith(f"({log})")
    assert "\n" not in message
    assert "another time" not in message


def test_data_of_no_version_is_told(server: EmbeddedPostgres) -> None:
    (server.data_dir / "pgdata" / "PG_VERSION").write_text("\n")
    with pytest.raises(CorruptDataError, match="wanted the version of Postgres"):
        server.start()


def test_details_belong_to_the_first_reason(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text(
        "1 LOG:  starting\n1 FATAL:  no room\n1 DETAIL:  of memory\n1 HINT:  buy some\n"
        "1 LOG:  x\n1 FATAL:  in consequence\n1 HINT:  of nothing\n"
    )
    assert last_words(log, after=0) == "no room; of memory; buy some"
    assert last_words(log, after=log.stat().st_size) == "it said nothing"
    assert last_words(log, after=log.stat().st_size - 6) == "thing"
