"""Brings a database to the newest revision; safe to call from several processes at once."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import NullPool

from app.core.errors import ConfigurationError
from app.library.database import with_options

# In a checkout and in an installed package alike, `migrations` lies beside `app`. Looking there
# rather than importing it by name cannot pick up another project's folder of that name.
MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "migrations"
LOCK: Final = 0x564C4942


def alembic_config(connection: Connection | None = None) -> Config:
    """What commands of Alembic are given, which work on the connection."""
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _open(url: str | URL) -> Connection:
    # It may take long; and a pooler that refuses options, as all connections have, says so at once.
    parsed = with_options(url, "-c statement_timeout=0")
    encoding = {"client_encoding": "utf8"}
    return create_engine(parsed, poolclass=NullPool, connect_args=encoding).connect()


@contextmanager
def _locked(url: str | URL) -> Iterator[Connection]:
    with _open(url) as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        yield connection


def upgrade(url: str | URL, *, revision: str = "head") -> None:
    """Applies what is missing, all in one transaction and behind a lock.

    Raises:
        ConfigurationError: The database cannot hold every text, or belongs to a newer version.
    """
    with _locked(url) as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
        if encoding != "UTF8":
            raise ConfigurationError(
                f"Wanted a database in UTF8, found {encoding}: make one by "
                "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            )
        require_known(_revision(connection))
        command.upgrade(alembic_config(connection), revision)


def remove_tables(url: str | URL) -> None:
    """Takes everything back that `upgrade` has made, with whatever is in it."""
    with _locked(url) as connection:
        command.downgrade(alembic_config(connection), "base")
        connection.execute(text("DROP TABLE alembic_version"))


def require_known(found: str | None) -> None:
    """Returns when this version knows the revision that a database is at, or there is none.

    Raises:
        ConfigurationError: A newer version has migrated it.
    """
    if found is not None and found not in known_revisions():
        raise ConfigurationError(
            f"The database is at revision {found}, which this version does not know: "
            "use the newer one that migrated it"
        )


def current_revision(url: str | URL) -> str | None:
    """The revision that the database is at, or None when it is empty."""
    with _open(url) as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def require_migrated(url: str | URL) -> None:
    """Returns when the database is not older than this version.

    Raises:
        ConfigurationError: It is, or has no tables.
    """
    wanted, found = newest_revision(), current_revision(url)
    if found != wanted and (found is None or found in known_revisions()):
        raise ConfigurationError(
            f"The database is not migrated: wanted {wanted}, found {found}; run vlibrary migrate"
        )


def newest_revision() -> str | None:
    """The revision that `upgrade` leads to."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def known_revisions() -> set[str]:
    """Every revision that `upgrade` can start from or lead to."""
    return {
        script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()
    }
