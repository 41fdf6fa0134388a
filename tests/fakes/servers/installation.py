"""`vlibrary serve` as a real process, and the family of processes it starts."""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.cli.processes.environments import child_environment
from tests.fakes.models.backbones import tiny_backbone
from tests.fakes.waiting import wait_until
from vlibrary_client import Client

ROOT = Path(__file__).resolve().parents[3]
READY_SECONDS = 600.0
LINES = 40


def save_tiny_backbone(folder: Path) -> Path:
    """The folder, from which any tool of Hugging Face can load a tiny random backbone."""
    backbone = tiny_backbone()
    backbone.model.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    return folder


def descendants(pid: int) -> set[int]:
    """Processes that this one started, and those that they started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    while fresh := {one for one, parent in parents.items() if parent in {pid, *found}} - found:
        found |= fresh
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Installation:
    """A data folder, and `vlibrary serve` on it as often as wanted."""

    def __init__(
        self, folder: Path, backbone: Path, *, variables: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = child_environment(
            {
                "data_dir": str(folder),
                "backbone": str(backbone),
                "port": str(self.port),
                "job_stalled_seconds": "3",
                "device": "cpu",
            }
        ) | dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "serve.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "app", *words],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_SECONDS,
        )

    def start(self) -> Client:
        """Starts `serve` and waits for its banner."""
        self._log = self.folder / f"serve-{uuid.uuid4().hex}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_ready, seconds=READY_SECONDS)
        return Client(self.url, timeout=READY_SECONDS)

    def child(self, name: str) -> int:
        """The process that runs one part."""
        (found,) = (
            pid
            for pid in descendants(self.pid)
            if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
        return found

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit status of `serve`."""
        assert self._process is not None
        return self._process.wait(READY_SECONDS)

    def told(self) -> str:
        """The last lines of this start's log and of the database's."""
        logs = (self._log, self.folder / "postgres" / "postgres.log")
        return "\n".join(
            line for log in logs if log.exists() for line in log.read_text().splitlines()[-LINES:]
        )

    def end(self) -> None:
        """Kills what still runs."""
        if self._process is not None and self.is_running:
            self._process.kill()
            self._process.wait(READY_SECONDS)

    def doctor(self) -> dict[str, bool]:
        """What `vlibrary doctor` finds, check by check."""
        report = json.loads(self.command("doctor", "--json").stdout)
        return {check["name"]: check["is_ok"] for check in report["checks"]}

    def _is_ready(self) -> bool:
        text = self._log.read_text()
        assert self._process is not None
        assert self._process.poll() is None, text
        return f"VLibrary is ready at {self.url}" in text


def processes_about(folder: Path) -> list[int]:
    """Processes whose command line names the folder."""
    return [pid for pid in _everyone() if str(folder).encode() in _command_line(pid)]


def _everyone() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
