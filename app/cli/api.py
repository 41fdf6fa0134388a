"""`vlibrary api`: the public api alone, which needs a database and workers."""

from typing import Annotated

import typer

from app.cli.options import read_settings
from app.core.errors import ConfigurationError
from app.core.logs import configure_logs


def api(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Serve the public api; needs DATABASE_URL and VLIBRARY_WORKERS."""
    settings = read_settings(host=host, port=port)
    configure_logs(settings.log_level)
    if settings.database_url is None:
        raise ConfigurationError(
            "The api needs a database: set DATABASE_URL, or use `vlibrary serve`"
        )
    import uvicorn

    from app.main import create_app

    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(settings.drain_timeout_seconds / 2)),
    )
