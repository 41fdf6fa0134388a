"""Runs revisions on the caller's connection, or on the database of the settings."""

from alembic import context
from sqlalchemy import Connection, create_engine

from app.core.errors import ConfigurationError
from app.core.settings import Settings
from app.library.access import access_tables  # noqa: F401 - its tables belong to the metadata
from app.library.database import database_url
from app.library.tables import Table


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    # The queue's tables are made by its own SQL and are not described by our models.
    return not (kind == "table" and name is not None and name.startswith("procrastinate_"))


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        include_name=_is_ours,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_on_settings() -> None:
    url = Settings().database_url
    if url is None:
        raise ConfigurationError("Set VLIBRARY_DATABASE_URL")
    with create_engine(database_url(url.get_secret_value())).begin() as connection:
        _run(connection)


if (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    _run_on_settings()
