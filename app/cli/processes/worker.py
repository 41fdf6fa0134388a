"""`vlibrary worker`: one process that owns the accelerator."""

import gc
import socket
from typing import Annotated

import typer

from app.cli.options import Backbone, Revision, read_settings, require_worker_secret
from app.core.errors import ConfigurationError
from app.core.settings import WorkerRole
from app.core.telemetry.logs import configure_logs


def worker(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    backbone: Backbone = None,
    revision: Revision = None,
    role: Annotated[WorkerRole | None, typer.Option(help="What it does.")] = None,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    wait_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Load the backbone and serve or train with it.

    Needs DATABASE_URL and VLIBRARY_WORKER_SECRET.
    """
    settings = read_settings(
        worker_host=host,
        worker_port=port,
        backbone=backbone,
        backbone_revision=revision,
        worker_role=role,
    )
    configure_logs(settings.log_level)
    if settings.database_url is None:
        raise ConfigurationError(
            "a worker needs a database: set DATABASE_URL, or use `vlibrary serve`"
        )
    require_worker_secret(settings)
    # Of what is imported nothing goes again, and looking for it takes time; it is looked for
    # once the backbone is loaded.
    gc.disable()
    from app.worker.process import run

    if wait_fd is not None:
        # Its other end is closed when the database is ready.
        with socket.socket(fileno=wait_fd) as gate:
            gate.recv(1)
    run(settings, listener=None if listen_fd is None else socket.socket(fileno=listen_fd))
