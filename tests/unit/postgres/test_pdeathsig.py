import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.postgres import pdeathsig
from app.postgres.pdeathsig import KEEP_ACCOUNT, with_pdeathsig

PARENT = """
import subprocess, sys, time
from app.postgres.pdeathsig import with_pdeathsig
child = subprocess.Popen(with_pdeathsig([{program}, *{arguments}]), start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def run(command: list[str], *, cwd: str | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, text=True, cwd=cwd
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, *, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_program_dies_with_its_parent(number: signal.Signals) -> None:
    script = PARENT.format(program="'/bin/sleep'", arguments=["60"])
    with run([sys.executable, "-c", script]) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}/comm").read_text().strip() != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        parent.send_signal(number)
        assert wait_until_gone(pid)


def test_the_program_keeps_the_process_and_its_arguments() -> None:
    with run(with_pdeathsig(["/bin/sh", "-c", 'echo "$$ $1"; umask', "sh", "two words"])) as child:
        output, _ = child.communicate()
    assert output == f"{child.pid} two words\n0077\n"
    assert child.returncode == 0


def test_nothing_runs_when_the_parent_is_gone_already() -> None:
    script = Path(pdeathsig.__file__)
    numbers = [str(os.getpid() + 1), str(int(signal.SIGINT)), "-1", "-1"]
    command = [sys.executable, "-I", "-S", str(script), *numbers, "/bin/echo", "ran"]
    with run(command) as child:
        output, _ = child.communicate()
    assert (output, child.returncode) == ("", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_the_program_runs_as_another_account_without_groups_and_still_dies() -> None:
    command = with_pdeathsig(["/bin/sh", "-c", "id -u; id -G; exec sleep 60"], uid=65534, gid=65534)
    with run(command, cwd="/") as child:
        assert child.stdout is not None
        assert [child.stdout.readline().strip() for _ in range(2)] == ["65534", "65534"]
        child.send_signal(signal.SIGKILL)
    assert with_pdeathsig(["/bin/true"])[5:8] == [str(int(signal.SIGINT)), str(KEEP_ACCOUNT), "-1"]


def test_a_system_without_prctl_runs_the_program_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    monkeypatch.setattr("os.execv", lambda _, command: became.append(command))
    monkeypatch.setattr("os.umask", lambda _: 0)
    numbers = (os.getppid(), int(signal.SIGINT), KEEP_ACCOUNT, KEEP_ACCOUNT)
    pdeathsig.main([*map(str, numbers), "/bin/true"])
    assert became == [["/bin/true"]]
