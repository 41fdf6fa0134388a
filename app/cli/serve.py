"""`vlibrary serve`: Postgres, a worker and the api as children of one process.

The parts that are configured elsewhere (`DATABASE_URL`, `VLIBRARY_WORKERS`) are not started.
"""

import http.client
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.options import read_settings
from app.cli.supervisor import Program, Supervisor
from app.core.errors import ConfigurationError
from app.core.logs import configure_logs
from app.core.settings import Settings, child_environment

READY_TIMEOUT_SECONDS: Final = 900.0
PROBE_TIMEOUT_SECONDS: Final = 2.0
JOB_STALLED_SECONDS: Final = 15.0


class Signals:
    """How often this process was asked to end."""

    def __init__(self) -> None:
        self._count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self._count += 1

    def asked(self) -> bool:
        """Whether the end was asked for."""
        return self._count > 0

    def insisted(self) -> bool:
        """Whether it was asked for again."""
        return self._count > 1


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address of the api.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the api.")] = None,
    backbone: Annotated[str | None, typer.Option(help="pocket, a folder or a hub id.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of all state.")] = None,
) -> None:
    """Run everything on this machine: Postgres, a worker with the backbone, the api."""
    settings = read_settings(host=host, port=port, backbone=backbone, data_dir=data_dir)
    configure_logs(settings.log_level)
    signals = Signals()
    require_free_port(settings.host, settings.port)
    with ExitStack() as stack:
        database_url = stack.enter_context(running_database(settings))
        if signals.asked():
            return
        supervisor = Supervisor(stop_timeout_seconds=settings.drain_timeout_seconds)
        stack.callback(supervisor.stop, hurried=signals.insisted)
        for program in programs(settings, database_url=database_url):
            supervisor.start(program)
        supervisor.wait_ready(timeout_seconds=READY_TIMEOUT_SECONDS, interrupted=signals.asked)
        if not signals.asked():
            print_banner(settings)
        supervisor.watch(interrupted=signals.asked)


@contextmanager
def running_database(settings: Settings) -> Iterator[str]:
    """The URL of a migrated database: the configured one, or our own for the block."""
    from app.library.embedded import EmbeddedPostgres
    from app.library.migrate import upgrade

    with ExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            url = stack.enter_context(
                EmbeddedPostgres(settings.postgres_dir, pg_bin=settings.pg_bin)
            ).url
        upgrade(url)
        yield url


def programs(settings: Settings, *, database_url: str) -> Iterator[Program]:
    """The children that these settings ask for, a worker before the api."""
    shared = {
        "database_url": database_url,
        "data_dir": str(settings.data_dir),
        "backbone": settings.backbone,
    }
    if "job_stalled_seconds" not in settings.model_fields_set:
        # A child that died is noticed here at once, so its job need not wait for long.
        shared["job_stalled_seconds"] = str(JOB_STALLED_SECONDS)
    workers = settings.workers
    if not workers:
        port = free_port(settings.worker_host, wanted=settings.worker_port)
        workers = (f"http://{settings.worker_host}:{port}",)
        yield Program(
            name="worker",
            command=_command("worker"),
            environment=child_environment({**shared, "worker_port": str(port)}),
            is_ready=_probe(settings.worker_host, port, "/health"),
        )
    yield Program(
        name="api",
        command=_command("api"),
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


def require_free_port(host: str, port: int) -> None:
    """Return when the port can be listened on.

    Raises:
        ConfigurationError: Something else listens there, or the address is not ours.
    """
    try:
        _listen_once(host, port)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "choose another with --port or VLIBRARY_PORT",
            details={"host": host, "port": port},
        ) from error


def free_port(host: str, *, wanted: int) -> int:
    """The wanted port when it is free, otherwise any free one."""
    try:
        return _listen_once(host, wanted)
    except OSError:
        return _listen_once(host, 0)


def _listen_once(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


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
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"VLibrary is ready at http://{host}:{settings.port}", flush=True)
    print(f"  backbone {settings.backbone}, data in {settings.data_dir}", flush=True)
    print("  Ctrl-C ends it", flush=True)
