"""What a command made for its time is gone when the command is, however it is asked to end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.processes.serve import CODE_FOLDER

WAITING = (
    "import sys, time; from app.cli import app\n"
    "from app.cli.processes.temporary import passing_folder\n"
    "def wait():\n"
    "    with passing_folder() as folder:\n"
    "        print(folder, flush=True)\n"
    "        time.sleep(240)\n"
    "app.COMMANDS['gc'] = wait; sys.argv = ['vlibrary', 'gc']; app.main()\n"
)


def start(shell: str = 'exec "$@"') -> tuple["subprocess.Popen[str]", Path]:
    process = subprocess.Popen(  # noqa: S603 - our own script
        ["/bin/bash", "-c", shell, "bash", sys.executable, "-c", WAITING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_folder_for_the_time_goes_with_the_command(number: signal.Signals) -> None:
    process, folder = start()
    assert folder.is_dir()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert not folder.exists()
    assert "Traceback" not in said
    # An interrupted command says so itself; others end by their signal, as whoever sent it expects.
    assert process.returncode == (130 if number == signal.SIGINT else -number)


def test_what_nohup_ignores_ends_no_command() -> None:
    process, folder = start("trap '' HUP; exec \"$@\"")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    assert folder.is_dir()
    process.terminate()
    process.communicate(timeout=60)
    assert not folder.exists()


def test_an_interrupt_within_the_imports_is_no_traceback(tmp_path: Path) -> None:
    # The library that the commands are made with, which takes its time here.
    (tmp_path / "typer.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(240)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "gc"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CODE_FOLDER,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},  # noqa: TID251 - Python's
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (-signal.SIGINT, "")
