import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.core.errors import ConfigurationError, UnavailableError
from app.library.database import conninfo
from app.postgres import server as embedded
from app.postgres.binaries import find_installation, unprivileged_account
from app.postgres.data_dir import open_lock, processes_in, socket_folder, try_lock
from app.postgres.server import EmbeddedPostgres

OWNER = """
import sys, time
import psycopg
from app.library.database import conninfo
from app.core.telemetry.logs import configure_logs
from app.postgres.server import EmbeddedPostgres
configure_logs()
server = EmbeddedPostgres(sys.argv[1])
server.start()
with psycopg.connect(conninfo(server.url)) as connection:
    connection.execute("CREATE TABLE kept (n int)")
    connection.execute("INSERT INTO kept VALUES (1)")
    connection.commit()
    connection.execute("INSERT INTO kept VALUES (2)")
    print(server.pid, flush=True)
    time.sleep(60)
"""


STARTER = """
import sys
from app.core.telemetry.logs import configure_logs
from app.postgres.server import EmbeddedPostgres
configure_logs()
server = EmbeddedPostgres(sys.argv[1])
server.start()
print(server.is_adopted, flush=True)
sys.stdin.read()
server.stop()
"""


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


def run(script: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(server: EmbeddedPostgres, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo(server.url), autocommit=True) as connection:
        return connection.execute(query).fetchall()


def at_most(seconds: float, *, begun: float) -> float:
    """The promised time, or three times what an ordinary start took where that is longer."""
    return max(seconds, 3 * (time.monotonic() - begun))


def wait_until_empty(folder: Path, *, seconds: float) -> set[int]:
    deadline = time.monotonic() + seconds
    while processes_in(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    return processes_in(folder)


def test_it_starts_answers_and_stops(server: EmbeddedPostgres) -> None:
    url = server.start()
    assert server.start() == url == server.url
    assert ask(server, "SELECT 1") == [(1,)]
    assert server.is_running
    assert not server.is_adopted
    assert server.pid is not None
    pgdata = server.data_dir / "pgdata"
    assert server.pid in processes_in(pgdata)
    server.stop()
    server.stop()
    assert processes_in(pgdata) == set()
    assert not server.is_running
    assert server.pid is None


def test_it_is_a_child_of_its_own_session_and_user(server: EmbeddedPostgres) -> None:
    server.start()
    assert server.pid is not None
    status = Path(f"/proc/{server.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["PPid"]) == os.getpid()
    assert os.getsid(server.pid) == server.pid
    account = unprivileged_account()
    uid = account.uid if account else os.geteuid()
    assert fields["Uid"].split() == [str(uid)] * 4


def test_only_its_user_can_reach_it(server: EmbeddedPostgres) -> None:
    server.start()
    for folder in (server.data_dir, server.data_dir / "pgdata", server.data_dir / "run"):
        assert folder.stat().st_mode & 0o077 == 0
    assert ask(server, "SHOW listen_addresses") == [("",)]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 5432)) != 0
    assert ask(server, "SHOW data_checksums") == [("on",)]
    assert ask(server, "SHOW fsync") == [("on",)]


def test_data_survive_a_restart(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(conninfo(server.url), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    server.stop()
    with EmbeddedPostgres(server.data_dir) as again:
        assert ask(again, "SELECT n FROM kept") == [(42,)]


def test_a_killed_owner_leaves_no_process_and_no_loss(folder: Path) -> None:
    begun = time.monotonic()
    with run(OWNER, folder) as owner:
        assert owner.stdout is not None
        postmaster = int(owner.stdout.readline())
        limit = at_most(5, begun=begun)
        assert postmaster in processes_in(folder / "pgdata")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert wait_until_empty(folder / "pgdata", seconds=limit) == set()
    with EmbeddedPostgres(folder) as server:
        assert ask(server, "SELECT n FROM kept") == [(1,)]


def test_everything_killed_at_once_is_recovered(folder: Path) -> None:
    begun = time.monotonic()
    with run(OWNER, folder) as owner:
        assert owner.stdout is not None
        postmaster = int(owner.stdout.readline())
        limit = at_most(10, begun=begun)
        os.kill(postmaster, signal.SIGKILL)
        owner.send_signal(signal.SIGKILL)
    assert (folder / "pgdata" / "postmaster.pid").exists()
    start = time.monotonic()
    with EmbeddedPostgres(folder) as server:
        assert time.monotonic() - start < limit
        assert ask(server, "SELECT n FROM kept") == [(1,)]


def test_a_crashed_server_is_started_again(server: EmbeddedPostgres) -> None:
    server.start()
    assert server.pid is not None
    first = server.pid
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while server.is_running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.is_running
    server.start()
    assert server.pid != first
    assert ask(server, "SELECT 1") == [(1,)]


def test_a_second_start_uses_the_running_server(server: EmbeddedPostgres) -> None:
    server.start()
    other = EmbeddedPostgres(server.data_dir)
    assert other.start() == server.url
    assert other.is_adopted
    assert other.is_running
    assert other.pid is None
    other.stop()
    assert not other.is_adopted
    assert ask(server, "SELECT 1") == [(1,)]


def test_who_starts_while_the_owner_is_ending_gets_a_server_of_its_own(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    first = server.pid
    server.announce_end()
    ending = threading.Timer(1.0, server.stop)
    ending.start()
    with EmbeddedPostgres(server.data_dir) as successor:
        ending.join()
        assert not successor.is_adopted
        assert successor.pid not in {None, first}
        assert ask(successor, "SELECT 1") == [(1,)]
        other = EmbeddedPostgres(server.data_dir)
        other.start()
        assert other.is_adopted


def test_many_starts_at_once_make_one_server(open_folder: Path) -> None:
    owners = [run(STARTER, open_folder / "postgres") for _ in range(3)]
    answers = [owner.stdout.readline().strip() for owner in owners if owner.stdout]
    for owner in owners:
        owner.communicate("")
    assert sorted(answers) == ["False", "True", "True"]
    assert [owner.returncode for owner in owners] == [0, 0, 0]


def test_a_folder_whose_owner_is_silent_is_refused(
    fresh: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_SECONDS", 0.2)
    fresh.data_dir.mkdir()
    descriptor = open_lock(fresh.data_dir)
    assert try_lock(descriptor)
    with pytest.raises(UnavailableError, match="silent"):
        fresh.start()
    os.close(descriptor)
    monkeypatch.undo()
    fresh.start()


def test_a_server_without_an_owner_is_replaced(server: EmbeddedPostgres) -> None:
    server.start()
    assert server._lock is not None
    os.close(server._lock)
    server._lock = None
    with EmbeddedPostgres(server.data_dir) as successor:
        assert not successor.is_adopted
        assert successor.pid not in {None, server.pid}
        assert not server.is_running
        assert ask(successor, "SELECT 1") == [(1,)]


def test_a_stale_pid_file_with_a_living_strangers_number_is_no_obstacle(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    pid_file = server.data_dir / "pgdata" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    account = unprivileged_account()
    stranger = subprocess.Popen(
        ["/bin/sleep", "60"], cwd="/", user=account.uid if account else None
    )
    pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
    socket_lock = server.data_dir / "run" / ".s.PGSQL.5432.lock"
    socket_lock.write_text(pid_file.read_text())
    server.start()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert ask(server, "SELECT 1") == [(1,)]


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
        elsewhere = socket_folder(folder, port=5432)
        assert elsewhere.parent != folder
        assert elsewhere.stat().st_mode & 0o077 == 0
    elsewhere.rmdir()


@pytest.mark.parametrize("name", ["two words+%20", "a,b"])
def test_odd_characters_in_the_path_do_no_harm(folder: Path, name: str) -> None:
    odd = folder.rename(folder.with_name(name))
    with EmbeddedPostgres(odd) as server:
        assert ask(server, "SELECT 1") == [(1,)]
        elsewhere = socket_folder(odd, port=5432)
    if elsewhere.parent != odd:
        elsewhere.rmdir()


def test_it_starts_from_the_main_thread_only(server: EmbeddedPostgres) -> None:
    caught: list[Exception] = []

    def start() -> None:
        try:
            server.start()
        except ConfigurationError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught)


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
    package = found.bin_dir.parent.parent
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for part in ("bin", "lib", "share"):
        source = found.bin_dir.parent / part
        shutil.copytree(source, closed / package.name / found.bin_dir.parent.name / part)
    shutil.copytree(package.parent / f"{package.name}.libs", closed / f"{package.name}.libs")
    bin_dir = closed / package.name / found.bin_dir.parent.name / "bin"
    with EmbeddedPostgres(folder, pg_bin=bin_dir) as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
        assert program.is_relative_to(folder)
        assert ask(server, "SELECT 1") == [(1,)]
    assert closed.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(fresh: EmbeddedPostgres) -> None:
    fresh.data_dir.mkdir()
    os.chown(fresh.data_dir, 12345, 12345)
    with pytest.raises(ConfigurationError, match="another user"):
        fresh.start()


def test_something_else_than_a_folder_is_refused(fresh: EmbeddedPostgres) -> None:
    fresh.data_dir.mkdir()
    (fresh.data_dir / "run").write_text("x")
    with pytest.raises(ConfigurationError, match="Wanted a folder"):
        fresh.start()
    assert not fresh.is_running


def test_data_of_an_unknown_version_are_left_alone(fresh: EmbeddedPostgres) -> None:
    version = fresh.data_dir / "pgdata" / "PG_VERSION"
    version.parent.mkdir(parents=True)
    version.write_text("9\n")
    with pytest.raises(ConfigurationError, match="wanted version 9"):
        fresh.start()
    assert version.read_text() == "9\n"


def test_a_server_that_ends_while_starting_says_why(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    settings = server.data_dir / "pgdata" / "postgresql.conf"
    settings.write_text("no_such_setting = 1\n")
    with pytest.raises(UnavailableError, match="no_such_setting"):
        server.start()
    assert server.pid is None


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


def test_a_large_log_is_set_aside(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "MAX_LOG_BYTES", 10)
    server.start()
    server.stop()
    server.start()
    assert (server.data_dir / "postgres.log.1").stat().st_size > 10
