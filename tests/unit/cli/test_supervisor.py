"""The supervisor with real child processes, which only sleep."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.cli.processes import supervisor as supervising
from app.cli.processes.environments import child_environment
from app.cli.processes.supervisor import Program, Supervisor
from app.core.errors import UnavailableError
from tests.fakes.waiting import SECONDS, wait_until

SLEEPER = "import time, pathlib, sys, os; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); "
WAIT_SECONDS = 10.0


def _program(script: str, marker: Path, *, is_ready: Callable[[], bool] = lambda: True) -> Program:
    command = (sys.executable, "-I", "-S", "-c", SLEEPER + script, str(marker))
    return Program(
        name="sleeper",
        command=command,
        environment=child_environment({}),
        folder=marker.parent,
        is_ready=is_ready,
    )


def _pid(marker: Path) -> int:
    wait_until(lambda: marker.exists() and marker.read_text().isdigit())
    return int(marker.read_text())


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    running = Supervisor(stop_timeout_seconds=1.0)
    yield running
    running.stop(hurried=lambda: True)


def test_stop_ends_children_that_obey(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(_program("time.sleep(60)", tmp_path / "pid"))
    pid = _pid(tmp_path / "pid")
    supervisor.stop(hurried=lambda: False)
    assert not _is_alive(pid)


def test_stop_kills_children_that_do_not_obey(supervisor: Supervisor, tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    supervisor.start(_program(deaf + "print(flush=True); time.sleep(60)", tmp_path / "pid"))
    pid = _pid(tmp_path / "pid")
    time.sleep(0.2)
    began = time.monotonic()
    supervisor.stop(hurried=lambda: False)
    assert not _is_alive(pid)
    assert time.monotonic() - began < WAIT_SECONDS


def test_a_second_request_to_end_kills_at_once(tmp_path: Path) -> None:
    patient = Supervisor(stop_timeout_seconds=60.0)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    patient.start(_program(deaf, tmp_path / "pid"))
    pid = _pid(tmp_path / "pid")
    time.sleep(0.2)
    began = time.monotonic()
    patient.stop(hurried=lambda: time.monotonic() - began > 0.2)
    assert not _is_alive(pid)
    assert time.monotonic() - began < WAIT_SECONDS


def test_a_child_that_dies_is_started_again_slower_each_time(tmp_path: Path) -> None:
    supervisor = Supervisor(first_backoff_seconds=0.1)
    log = tmp_path / "starts"
    script = f"open({str(log)!r}, 'a').write('start ')"
    began = time.monotonic()
    supervisor.start(_program(script, tmp_path / "pid"))

    def has_started(times: int) -> bool:
        assert time.monotonic() - began < SECONDS
        return log.exists() and len(log.read_text().split()) >= times

    supervisor.watch(interrupted=lambda: has_started(4))
    # At least 0.1, 0.2 and 0.4 s lie between four starts.
    assert time.monotonic() - began >= 0.7
    supervisor.stop(hurried=lambda: True)


def test_a_child_that_lived_is_started_again_at_once_however_often(tmp_path: Path) -> None:
    supervisor = Supervisor(first_backoff_seconds=0.02)
    lives = "time.sleep(0.3); os.kill(os.getpid(), 9)"
    supervisor.start(_program(lives, tmp_path / "pid"))
    with capture_logs() as logs:
        supervisor.watch(interrupted=lambda: len(logs) >= 3)
    supervisor.stop(hurried=lambda: True)
    assert [line["seconds"] for line in logs] == [0.0, 0.0, 0.0]


def test_it_is_ready_when_every_child_is(supervisor: Supervisor, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    supervisor.start(_program("time.sleep(60)", marker, is_ready=marker.exists))
    supervisor.wait_ready(timeout_seconds=WAIT_SECONDS, interrupted=lambda: False)
    assert marker.exists()


def test_a_child_that_ends_at_its_start_is_reported(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(_program("sys.exit(3)", tmp_path / "pid", is_ready=lambda: False))
    with pytest.raises(UnavailableError, match="sleeper ended at its start with status 3"):
        supervisor.wait_ready(timeout_seconds=WAIT_SECONDS, interrupted=lambda: False)


def test_a_child_that_is_killed_at_its_start_is_started_again_some_times(tmp_path: Path) -> None:
    supervisor = Supervisor(first_backoff_seconds=0.01)
    log, marker = tmp_path / "starts", tmp_path / "pid"
    note = f"log = pathlib.Path({str(log)!r}); log.open('a').write('start '); "
    killed = "os.kill(os.getpid(), 9) if len(log.read_text().split()) < 3 else time.sleep(60)"
    supervisor.start(
        _program(note + killed, marker, is_ready=lambda: log.read_text().split() == ["start"] * 3)
    )
    wait_until(log.exists)
    supervisor.wait_ready(timeout_seconds=SECONDS, interrupted=lambda: False)
    supervisor.stop(hurried=lambda: True)
    supervisor.start(_program("os.kill(os.getpid(), 9)", marker, is_ready=lambda: False))
    with pytest.raises(UnavailableError, match="sleeper ended at its start with status -9"):
        supervisor.wait_ready(timeout_seconds=SECONDS, interrupted=lambda: False)
    supervisor.stop(hurried=lambda: True)


def test_waiting_ends_when_time_is_up_or_when_interrupted(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(_program("time.sleep(60)", tmp_path / "pid", is_ready=lambda: False))
    with pytest.raises(UnavailableError, match="not ready"):
        supervisor.wait_ready(timeout_seconds=0.1, interrupted=lambda: False)
    supervisor.wait_ready(timeout_seconds=WAIT_SECONDS, interrupted=lambda: True)


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    parent = f"""
import sys, time
from app.cli.processes.supervisor import Program, Supervisor
from app.cli.processes.environments import child_environment
running = Supervisor()
command = (sys.executable, "-I", "-S", "-c", {SLEEPER + "time.sleep(60)"!r}, {str(marker)!r})
running.start(Program(name="child", command=command, environment=child_environment({{}}),
                      folder="/tmp", is_ready=lambda: True))
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent])  # noqa: S603 - our own script
    child = _pid(marker)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(WAIT_SECONDS)
    wait_until(lambda: not _is_alive(child))


def test_who_is_waited_for_is_told(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "WORD_SECONDS", 0.0)
    probes = iter([False] * 3)
    supervisor.start(
        _program("time.sleep(60)", tmp_path / "pid", is_ready=lambda: next(probes, True))
    )
    with capture_logs() as logs:
        supervisor.wait_ready(timeout_seconds=SECONDS, interrupted=lambda: False)
    told = [entry["children"] for entry in logs if entry["event"] == "still waiting"]
    assert told
    assert all(names == ["sleeper"] for names in told)
