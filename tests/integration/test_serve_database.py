"""The database of `vlibrary serve` dies, again and again: while it is used, and while it starts."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from app.cli import database as watched
from app.cli.database import Database, database_as_it_is, running_database
from app.core.errors import UnavailableError
from app.core.settings import Settings
from app.library import migrate
from app.library.database import conninfo, database_url
from tests.fakes.servers.installation import is_alive
from tests.fakes.waiting import wait_until

DISK = "130m"
MANY = 100


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(watched, "LONGEST_PAUSE_SECONDS", 0.1)


@pytest.fixture
def settings(open_folder: Path, pristine: Path) -> Settings:
    """Of a folder whose cluster nobody runs."""
    subprocess.run(["/bin/cp", "-a", pristine, open_folder], check=True)  # noqa: S603 - our own
    return Settings.model_validate({"data_dir": open_folder, "database_url": None})


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with database_as_it_is(settings) as running:
        yield running


def ask(url: str, query: str) -> None:
    engine = create_engine(database_url(url), poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(query))


def count(url: str) -> int:
    engine = create_engine(database_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM kept")).scalar_one())


def answers(database: Database) -> bool:
    try:
        ask(database.url, "SELECT 1")
    except OperationalError:
        return False
    return True


def postmaster(settings: Settings) -> int:
    pid_file = settings.postgres_dir / "pgdata" / "postmaster.pid"
    return int(pid_file.read_text().split()[0])


def kill(settings: Settings) -> None:
    os.kill(postmaster(settings), signal.SIGKILL)


def is_back(database: Database) -> bool:
    database.restart_if_ended()
    return answers(database)


def test_it_is_started_again_when_it_was_killed(database: Database, settings: Settings) -> None:
    kill(settings)
    wait_until(lambda: not answers(database))
    wait_until(lambda: is_back(database))


def test_a_crash_of_one_connection_ends_it_and_it_is_started_again(
    database: Database, settings: Settings
) -> None:
    """By itself it may stay in a recovery that has failed, neither dead nor of use."""
    server = postmaster(settings)
    connection = psycopg.connect(conninfo(database.url))
    os.kill(connection.info.backend_pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(server))
    connection.close()
    wait_until(lambda: is_back(database))
    assert postmaster(settings) != server


def test_one_that_does_not_start_is_tried_until_it_does(
    database: Database, settings: Settings
) -> None:
    control = settings.postgres_dir / "pgdata" / "global" / "pg_control"
    hidden = control.with_name("hidden")
    control.rename(hidden)
    kill(settings)
    wait_until(lambda: not answers(database))
    for _ in range(5):
        database.restart_if_ended()
        assert not answers(database)
    hidden.rename(control)
    wait_until(lambda: is_back(database))


def test_one_that_is_not_back_yet_does_not_keep_serve_from_ending(settings: Settings) -> None:
    asked = False
    with database_as_it_is(settings, interrupted=lambda: asked) as database:
        kill(settings)
        wait_until(lambda: not answers(database))
        asked = True
        database.restart_if_ended()
        assert not answers(database)


def test_one_that_dies_before_it_is_migrated_is_no_failed_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def upgrade(url: str) -> None:
        tries.append(url)
        if len(tries) == 1:
            kill(settings)
        ask(url, "SELECT 1")

    monkeypatch.setattr(migrate, "upgrade", upgrade)
    with running_database(settings) as database:
        assert answers(database)
    assert len(tries) > 1


def test_a_database_of_others_that_is_away_is_told_at_once() -> None:
    settings = Settings.model_validate({"database_url": "postgresql://nobody@127.0.0.1:9/nothing"})
    with pytest.raises(UnavailableError, match="port 9 failed"), running_database(settings):
        pass


@pytest.fixture
def small_disk(open_folder: Path, pristine: Path) -> Iterator[Path]:
    """A small disk of its own with a cluster that nobody runs."""
    disk = open_folder / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK},mode=711", "tmpfs", str(disk)]
    subprocess.run(["mount", *options], check=True)  # noqa: S603, S607 - root's own
    try:
        subprocess.run(["/bin/cp", "-a", pristine, disk], check=True)  # noqa: S603 - our own
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S603, S607 - as above


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))


def write_until_refused(url: str) -> int:
    """How many rows were acknowledged."""
    num_kept = 0
    with contextlib.suppress(OperationalError):
        for _ in range(MANY):
            ask(url, "INSERT INTO kept VALUES (1)")
            num_kept += 1
            # Its next row needs another file of the log.
            ask(url, "SELECT pg_switch_wal()")
    assert num_kept < MANY
    return num_kept


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_full_for_its_log_loses_nothing_and_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    settings = Settings.model_validate({"data_dir": small_disk, "database_url": None})
    filler = small_disk / "filler"
    with database_as_it_is(settings) as database:
        # With a page that has room for more, so that the log is what grows.
        ask(database.url, "CREATE TABLE kept AS SELECT 0 AS n")
        fill(filler)
        num_kept = 1 + write_until_refused(database.url)
        told = (settings.postgres_dir / "postgres.log").read_text()
        assert re.search('PANIC: .*"pg_wal/.*No space left on device', told)
        for _ in range(20):
            database.restart_if_ended()
            time.sleep(0.05)
        filler.unlink()
        wait_until(lambda: is_back(database))
        assert num_kept <= count(database.url) <= num_kept + 1
        ask(database.url, "INSERT INTO kept VALUES (2)")
