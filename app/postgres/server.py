"""An own Postgres as a direct child of this process: started, watched and stopped here.

It listens on a unix socket that only its account and root can reach, and it ends when this process
ends, however that happens. A lock on the folder makes one process its owner; further ones use the
running server without owning it.

Linux only, because the guarantee rests on PR_SET_PDEATHSIG and /proc.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from pwd import struct_passwd
from typing import Final, Self

import psycopg

from app.core.errors import ConfigurationError, UnavailableError
from app.core.telemetry.logs import get_logger
from app.postgres.binaries import (
    find_installation,
    make_runnable,
    may_enter,
    require_named_user,
    unprivileged_account,
)
from app.postgres.data_dir import (
    DATABASE,
    POLL_SECONDS,
    PORT,
    USER,
    address,
    evict,
    is_ending,
    last_words,
    make_private_folder,
    note_ending,
    open_here,
    open_lock,
    socket_folder,
    try_lock,
    version_of_data,
)
from app.postgres.pdeathsig import KEEP_ACCOUNT, with_pdeathsig

START_TIMEOUT_SECONDS: Final = 120.0
FAST_STOP_SECONDS: Final = 20.0
MAX_LOG_BYTES: Final = 10 * 1024 * 1024

_SERVER_OPTIONS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Containers often have 64 MB of /dev/shm, which parallel queries would exhaust.
    "max_parallel_workers_per_gather": "0",
    # After a crash it ends, and whoever watches it starts it anew. By itself it may stay for ever
    # in a recovery whose process has failed, on a full disk for instance.
    "restart_after_crash": "off",
}

log = get_logger(__name__)


class EmbeddedPostgres:
    """A Postgres server below one folder, alive between `start` and `stop`.

    Also a context manager that starts on entry and stops on exit. One that is not shared is joined
    by nobody: who starts meanwhile waits for its end.

    Attributes:
        data_dir: Folder of the server: data, socket, log, and a copy of the programs if needed.
        url: SQLAlchemy URL of the database, valid while the server runs.
        is_adopted: Whether another process owns the server that `start` found.
    """

    def __init__(
        self, data_dir: Path | str, *, pg_bin: Path | None = None, is_shared: bool = True
    ) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.url = address(self.data_dir)
        self.is_adopted = False
        self._pgdata = self.data_dir / "pgdata"
        self._socket_dir = socket_folder(self.data_dir)
        self._is_shared = is_shared
        self._pg_bin = pg_bin
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._log_bytes = 0

    @property
    def pid(self) -> int | None:
        """Process id of the server that this object owns."""
        return self._child.pid if self._child else None

    @property
    def is_running(self) -> bool:
        """Whether the owned server is alive, or an adopted one answers."""
        if self.is_adopted:
            return self._answers()
        return self._child is not None and self._child.poll() is None

    def start(self, *, interrupted: Callable[[], bool] = lambda: False) -> str:
        """Makes the server ready and returns its URL; harmless when it already runs.

        `interrupted` tells whether to give up waiting.

        Raises:
            ConfigurationError: Not the main thread, not Linux, no Postgres, or a folder that the
                server's account cannot reach.
            UnavailableError: It did not get ready in time, or the waiting was given up.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError("Postgres must be started from the main thread")
        if not Path("/proc/self/cwd").exists():
            raise ConfigurationError("Embedded Postgres needs Linux; set VLIBRARY_DATABASE_URL")
        if self.is_running:
            return self.url
        self.stop()
        account = unprivileged_account()
        make_private_folder(self.data_dir, account=account)
        if not may_enter(account, self.data_dir):
            name = account.pw_name if account else "this user"
            raise ConfigurationError(
                f"{name} cannot reach {self.data_dir}: a folder above it is closed to others; "
                "set VLIBRARY_DATA_DIR to a place that can be reached"
            )
        if self._lock_or_adopt(interrupted):
            try:
                self._start_owned(account, interrupted)
            except BaseException:
                self.stop()
                raise
        return self.url

    def announce_end(self) -> None:
        """Let nobody adopt the server any more: who starts now waits for the folder instead."""
        if self._lock is not None:
            # A full disk takes no word, and must not keep the server from ending.
            with contextlib.suppress(OSError):
                note_ending(self._lock, is_ending=True)

    def stop(self) -> None:
        """Ends an owned server and releases the folder; an adopted one is left alone."""
        self.is_adopted = False
        self.announce_end()
        if self._child is not None:
            self._end_child(self._child)
            self._child = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _connect(self, database: str = DATABASE) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._socket_dir),
            port=PORT,
            user=USER,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def _answers(self, database: str = DATABASE) -> bool:
        # Starting up, shutting down (57P03) and not listening yet are all OperationalErrors.
        try:
            with self._connect(database) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _lock_or_adopt(self, interrupted: Callable[[], bool]) -> bool:
        descriptor = open_lock(self.data_dir)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and not interrupted():
            if try_lock(descriptor):
                note_ending(descriptor, is_ending=not self._is_shared)
                self._lock = descriptor
                return True
            if not is_ending(descriptor) and self._answers():
                os.close(descriptor)
                self.is_adopted = True
                log.info("using a running postgres", folder=str(self.data_dir))
                return False
            time.sleep(POLL_SECONDS)
        os.close(descriptor)
        raise UnavailableError(f"Another process holds {self.data_dir}, and does not end")

    def _start_owned(self, account: struct_passwd | None, interrupted: Callable[[], bool]) -> None:
        make_private_folder(self._socket_dir, account=account)
        evict(self._pgdata, socket_dir=self._socket_dir)
        major = version_of_data(self._pgdata)
        found = find_installation(self._pg_bin, major=major)
        bin_dir = make_runnable(found, account=account, folder=self.data_dir)
        if major is None:
            self._initialise(bin_dir, account)
        # Copies often open it to others, and Postgres would not start.
        self._pgdata.chmod(0o700)
        self._spawn(bin_dir, account)
        self._wait_until_ready(interrupted)
        self._create_database()
        log.info("postgres is ready", pid=self.pid, version=version_of_data(self._pgdata))

    def _command(self, account: struct_passwd | None, *command: str | Path) -> list[str]:
        uid, gid = (account.pw_uid, account.pw_gid) if account else (KEEP_ACCOUNT, KEEP_ACCOUNT)
        return with_pdeathsig(command, uid=uid, gid=gid)

    def _initialise(self, bin_dir: Path, account: struct_passwd | None) -> None:
        require_named_user()
        # Renamed when complete, so that a kill in the middle leaves nothing half made in use.
        unfinished = self.data_dir / "pgdata.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C"]
        options += [f"--username={USER}", "--data-checksums", "--no-instructions"]
        result = subprocess.run(  # noqa: S603 - the command is made of our own paths
            self._command(account, bin_dir / "initdb", "-D", unfinished, *options),
            cwd="/",
            env={"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            reason = "; ".join(result.stderr.strip().splitlines())
            raise ConfigurationError(f"initdb failed: {reason[-500:]}")
        unfinished.rename(self._pgdata)

    def _spawn(self, bin_dir: Path, account: struct_passwd | None) -> None:
        log_file = self.data_dir / "postgres.log"
        if log_file.exists() and log_file.stat().st_size > MAX_LOG_BYTES:
            log_file.rename(log_file.with_suffix(".log.1"))
        options = {**_SERVER_OPTIONS, "unix_socket_directories": str(self._socket_dir)}
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        program: list[str | Path] = [bin_dir / "postgres", "-D", self._pgdata, "-p", str(PORT)]
        with open(log_file, "ab", opener=open_here) as stream:
            self._log_bytes = stream.tell()
            # Its own session, because Ctrl-C in a terminal reaches a whole process group and the
            # server must outlive the requests that are being drained.
            self._child = subprocess.Popen(  # noqa: S603 - the command is made of our own paths
                self._command(account, *program, *settings),
                cwd="/",
                env={"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def _wait_until_ready(self, interrupted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers("postgres"):
            if self._child is None or self._child.poll() is not None:
                log_file = self.data_dir / "postgres.log"
                reason = last_words(log_file, after=self._log_bytes)
                raise UnavailableError(f"Postgres ended while starting: {reason} ({log_file})")
            if time.monotonic() > deadline or interrupted():
                raise UnavailableError("Postgres was not ready in time")
            time.sleep(POLL_SECONDS)

    def _create_database(self) -> None:
        with self._connect("postgres") as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).fetchone() is None:
                connection.execute(f'CREATE DATABASE "{DATABASE}"')

    def _end_child(self, child: subprocess.Popen[bytes]) -> None:
        steps = ((signal.SIGINT, FAST_STOP_SECONDS), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
        for number, seconds in steps:
            if child.poll() is None:
                child.send_signal(number)
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                log.warning("postgres did not stop", pid=child.pid, signal=number.name)
            else:
                return
