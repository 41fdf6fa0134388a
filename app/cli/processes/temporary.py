"""A whole service for as long as a block: for the demo, benchmarks and tests."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.cli.processes.environments import own_environment
from app.cli.processes.ports import free_port
from app.cli.processes.serve import CODE_FOLDER
from app.core.errors import ConfigurationError, UnavailableError
from app.core.folders import making_folders
from app.postgres.pdeathsig import with_pdeathsig

if TYPE_CHECKING:
    from vlibrary_client import Client

READY_TIMEOUT_SECONDS: Final = 300.0
SHOWN_LOG_CHARACTERS: Final = 4000


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A folder that goes with the block; Postgres under its own account may pass through it."""
    with tempfile.TemporaryDirectory(prefix="vlibrary-demo-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextmanager
def running_service(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """The URL of a service of its own, ended with the block.

    Whatever the block is doing is ended too when the service ends first.

    Its settings are these, beside those of this process's environment that do not tell where other
    services are.

    Raises:
        UnavailableError: The service ended before the block; its log was printed.
    """
    port = free_port("127.0.0.1")
    log = data_dir / "serve.log"
    with making_folders():
        data_dir.mkdir(parents=True, exist_ok=True)
    options = ["--port", str(port), "--data-dir", str(data_dir.resolve())]
    command = [sys.executable, "-m", "app", "serve", *options]
    # Whoever is killed cannot end it.
    command = with_pdeathsig(command, death_signal=signal.SIGTERM)
    with (
        log.open("wb") as file,
        subprocess.Popen(  # noqa: S603 - our own
            command,
            stdout=file,
            stderr=file,
            env=own_environment(settings or {}),
            cwd=CODE_FOLDER,
            start_new_session=True,
        ) as process,
    ):
        try:
            with _ended_with(process):
                yield f"http://127.0.0.1:{port}"
        except UnavailableError:
            print(f"The last lines of {log}:", file=sys.stderr)
            print(log.read_text(errors="replace")[-SHOWN_LOG_CHARACTERS:], file=sys.stderr)
            raise
        finally:
            process.terminate()


@contextmanager
def _ended_with(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Runs the block in the main thread, and raises in it as soon as the process ends.

    Raises:
        UnavailableError: The process ended.
    """

    def look(*_: object) -> None:
        if process.poll() is not None:
            raise UnavailableError(f"the service ended with status {process.returncode}")

    # A signal, because only that gets through to whatever the block waits for.
    before = signal.signal(signal.SIGCHLD, look)
    try:
        look()
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def wait_ready(client: "Client") -> None:
    """Returns when the service can take requests.

    Raises:
        ConfigurationError: It did not come up in time.
    """
    from vlibrary_client import VLibraryError

    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            if client.ready().status == "ready":
                return
        except VLibraryError:
            pass
        time.sleep(0.5)
    raise ConfigurationError(f"the service was not ready after {READY_TIMEOUT_SECONDS:.0f} s")
