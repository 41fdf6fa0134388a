import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from app.core.errors import ConfigurationError, UnavailableError
from app.library.database import conninfo
from app.postgres import server as embedded
from app.postgres.binaries import unprivileged_account
from app.postgres.data_dir import open_lock, processes_in, try_lock
from app.postgres.server import EmbeddedPostgres
from tests.fakes.servers.postgres import ask

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


def run(script: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


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
    uid = account.pw_uid if account else os.geteuid()
    assert fields["Uid"].split() == [str(uid)] * 4


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


def test_who_starts_beside_one_that_is_not_shared_waits_for_its_end(open_folder: Path) -> None:
    with EmbeddedPostgres(open_folder / "postgres", is_shared=False) as server:
        waiting = EmbeddedPostgres(server.data_dir)
        tries = iter([False] * 5)
        with pytest.raises(UnavailableError, match="Another process holds"):
            waiting.start(interrupted=lambda: next(tries, True))
        assert not waiting.is_adopted
        assert ask(server, "SELECT 1") == [(1,)]


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
    with pytest.raises(UnavailableError, match="does not end"):
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
        ["/bin/sleep", "60"], cwd="/", user=account.pw_uid if account else None
    )
    pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
    socket_lock = server.data_dir / "run" / ".s.PGSQL.5432.lock"
    socket_lock.write_text(pid_file.read_text())
    server.start()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert ask(server, "SELECT 1") == [(1,)]


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


def test_a_server_that_ends_while_starting_says_why(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    settings = server.data_dir / "pgdata" / "postgresql.conf"
    settings.write_text("no_such_setting = 1\n")
    with pytest.raises(UnavailableError, match="no_such_setting"):
        server.start()
    assert server.pid is None


def test_a_large_log_is_set_aside(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "MAX_LOG_BYTES", 10)
    server.start()
    server.stop()
    server.start()
    assert (server.data_dir / "postgres.log.1").stat().st_size > 10
