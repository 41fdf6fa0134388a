"""`vlibrary api`: the public api alone, which needs a database and workers."""

import gc
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.database import require_migrated
from app.cli.keys import require_a_key
from app.cli.options import read_settings, require_worker_secret
from app.core.errors import ConfigurationError
from app.core.settings import Settings
from app.core.telemetry.logs import configure_logs

if TYPE_CHECKING:
    import uvicorn

STARTUP_FAILED: Final = 3
# Longer than load balancers keep one, 60 s mostly: who sends into one that is just being closed
# gets a 502, which nobody may retry for a POST.
IDLE_SECONDS: Final = 75


def api(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Serve the public api; needs DATABASE_URL, VLIBRARY_WORKER_SECRET and VLIBRARY_WORKERS."""
    settings = read_settings(host=host, port=port)
    if settings.database_url is None:
        raise ConfigurationError(
            "The api needs a database: set DATABASE_URL, or use `vlibrary serve`"
        )
    require_worker_secret(settings)
    url = settings.database_url.get_secret_value()
    require_migrated(url)
    require_a_key(settings, url)
    configure_logs(settings.log_level)
    # Of what is imported nothing goes again, and looking for it takes time.
    gc.disable()
    from app.main import create_app

    server = make_server(create_app(settings), settings)
    # What exists now lives as long as the process; collections need not walk through it.
    gc.freeze()
    gc.enable()
    try:
        server.run(sockets=[bound_listener(server.config, settings)])
    except KeyboardInterrupt:
        # uvicorn raises it once more when all requests have ended.
        return
    if not server.started:
        sys.exit(STARTUP_FAILED)


def make_server(app: Callable[..., Any], settings: Settings) -> "uvicorn.Server":
    """The server of the api's HTTP, not yet started."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=max(1, int(settings.drain_timeout_seconds / 2)),
        )
    )


def bound_listener(config: "uvicorn.Config", settings: Settings) -> socket.socket:
    """The socket to listen on, whose connections end when a client reads nothing for too long.

    A response that is given up leaves bytes behind, and closing waits until they are read. Only the
    system can tell that they never will be, and only Linux does.
    """
    from app.api.steer.streaming import SEND_SLACK_SECONDS

    listener = config.bind_socket()
    # asyncio does so itself only for sockets that it has made; without it answers wait for
    # acknowledgements that clients delay by 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        seconds = settings.request_timeout_seconds + SEND_SLACK_SECONDS
        # Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, option, int(1000 * seconds))
    return listener
