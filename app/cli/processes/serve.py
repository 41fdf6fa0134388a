"""`vlibrary serve`: Postgres, a worker and the api as children of one process.

The parts that are configured elsewhere (`DATABASE_URL`, `VLIBRARY_WORKERS`) are not started.
"""

import http.client
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.database import database_address, forget_postgres_variables, running_database
from app.cli.keys import require_a_key
from app.cli.options import Backbone, Revision, read_settings
from app.cli.processes.environments import child_environment
from app.cli.processes.ports import bound, require_free_port, url_of
from app.cli.processes.supervisor import Program, Supervisor
from app.core.settings import Settings, revealed
from app.core.telemetry.logs import configure_logs

# `python -m app` looks there first, so no other folder called `app` can take our place.
CODE_FOLDER: Final = Path(__file__).resolve().parents[3]
INTERRUPTED: Final = 130
READY_TIMEOUT_SECONDS: Final = 900.0
PROBE_TIMEOUT_SECONDS: Final = 2.0
JOB_STALLED_SECONDS: Final = 15.0


class Signals:
    """How often this process was asked to end, by Ctrl-C, SIGTERM or the end of its terminal."""

    def __init__(self) -> None:
        self._count = 0
        self._are_noted = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # `nohup` has it outlive the terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def note(self) -> None:
        """From now on only note them; before, they interrupt whatever is being done."""
        self._are_noted = True

    def should_exit(self) -> bool:
        """Whether the end was asked for."""
        return self._count > 0

    def force_exit(self) -> bool:
        """Whether it was asked for again."""
        return self._count > 1

    def _receive(self, *_: object) -> None:
        self._count += 1
        if not self._are_noted:
            raise KeyboardInterrupt


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address of the api.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the api.")] = None,
    backbone: Backbone = None,
    revision: Revision = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of all state.")] = None,
) -> None:
    """Run everything on this machine: Postgres, a worker with the backbone, the api."""
    settings = read_settings(
        host=host, port=port, backbone=backbone, backbone_revision=revision, data_dir=data_dir
    )
    if "log_level" not in settings.model_fields_set:
        # A person watches; a line for every request would bury the ones that matter.
        settings = settings.model_copy(update={"log_level": "warning"})
    configure_logs(settings.log_level)
    require_free_port(settings.host, settings.port)
    try:
        run(settings, signals=Signals())
    except KeyboardInterrupt:
        raise typer.Exit(code=INTERRUPTED) from None


def run(settings: Settings, *, signals: Signals) -> None:
    """Serve until asked to end; nothing runs any more afterwards.

    Raises:
        ConfigurationError: A port is in use.
        UnavailableError: A part did not start.
        KeyboardInterrupt: The end was asked for before there was a database.
    """
    if settings.database_url is None:
        forget_postgres_variables()
    with ExitStack() as stack:
        supervisor = Supervisor(stop_timeout_seconds=settings.drain_timeout_seconds)
        stack.callback(supervisor.stop, hurried=signals.force_exit)
        gate, held = (stack.enter_context(end) for end in socket.socketpair())
        listener = None
        if not settings.workers:
            listener = stack.enter_context(worker_listener(settings))
        *workers, api = programs(
            settings, database_url=database_address(settings), listener=listener, gate=held
        )
        for worker in workers:
            # What it imports takes as long as the database.
            supervisor.start(worker)
        database = stack.enter_context(
            running_database(settings, is_shared=True, interrupted=signals.should_exit)
        )
        signals.note()
        # Once more, since the children end before the database does.
        stack.callback(supervisor.stop, hurried=signals.force_exit)
        # Before the children drain, which may take longer than another start.
        stack.callback(database.announce_end)
        database.ask(partial(require_a_key, settings))
        gate.close()
        supervisor.start(api)
        supervisor.wait_ready(
            timeout_seconds=READY_TIMEOUT_SECONDS,
            interrupted=signals.should_exit,
            maintenance=database.restart_if_ended,
        )
        if not signals.should_exit():
            print_banner(settings)
        supervisor.watch(interrupted=signals.should_exit, maintenance=database.restart_if_ended)


@contextmanager
def worker_listener(settings: Settings) -> Iterator[socket.socket]:
    """The socket of the embedded worker: at its port if one was set, otherwise at any free one.

    It is ours for as long as we run, so between the choice of the port and the start of the worker,
    or while the worker is started again, nobody else's worker can answer there.

    Raises:
        ConfigurationError: The port that was set is in use.
    """
    is_set = "worker_port" in settings.model_fields_set
    if is_set:
        require_free_port(settings.worker_host, settings.worker_port, option="VLIBRARY_WORKER_PORT")
    with bound(settings.worker_host, settings.worker_port if is_set else 0) as listener:
        yield listener


def programs(
    settings: Settings, *, database_url: str, listener: socket.socket | None, gate: socket.socket
) -> Iterator[Program]:
    """The children that these settings ask for, a worker before the api.

    Where there are other workers, none of ours needs a listener. A worker needs no database before
    the other end of the gate is closed.
    """
    # Children work elsewhere, so what is relative to here must be told in full.
    local = Path(settings.backbone).resolve()
    shared = {
        "database_url": database_url,
        "data_dir": str(settings.data_dir.resolve()),
        "backbone": str(local) if local.is_dir() else settings.backbone,
        **({"backbone_revision": found} if (found := settings.backbone_revision) else {}),
        "log_level": settings.log_level,
        # Nobody but our own api and worker, where both are ours, is to know it.
        "worker_secret": revealed(settings.worker_secret) or secrets.token_urlsafe(32),
    }
    if "job_stalled_seconds" not in settings.model_fields_set:
        # A child that died is noticed here at once, so its job need not wait for long.
        shared["job_stalled_seconds"] = str(JOB_STALLED_SECONDS)
    workers = settings.workers
    if listener is not None:
        port, descriptor = int(listener.getsockname()[1]), listener.fileno()
        workers = (url_of(settings.worker_host, port),)
        yield Program(
            name="worker",
            command=(
                *_command("worker"),
                *("--wait-fd", str(gate.fileno()), "--listen-fd", str(descriptor)),
            ),
            folder=CODE_FOLDER,
            environment=child_environment({**shared, "worker_port": str(port)}),
            is_ready=_probe(settings.worker_host, port, "/health"),
            inherited=(descriptor, gate.fileno()),
        )
    yield Program(
        name="api",
        command=_command("api"),
        folder=CODE_FOLDER,
        environment=child_environment(
            {
                **shared,
                "host": settings.host,
                "port": str(settings.port),
                "workers": ",".join(workers),
            }
        ),
        is_ready=_probe(settings.host, settings.port, "/readyz"),
    )


def _command(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "app", name)


def _probe(host: str, port: int, path: str) -> Callable[[], bool]:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound

    def is_ready() -> bool:
        connection = http.client.HTTPConnection(reachable, port, timeout=PROBE_TIMEOUT_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return is_ready


def print_banner(settings: Settings) -> None:
    """Say where everything is."""
    print(f"VLibrary is ready at {url_of(settings.host, settings.port)}", flush=True)
    print(f"  backbone {settings.backbone}, data in {settings.data_dir}", flush=True)
    print("  Ctrl-C ends it", flush=True)
