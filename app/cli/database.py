"""The database of a command: the configured one, or our own, kept alive however it dies."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from app.core.errors import NotFoundError, UnavailableError
from app.core.settings import Settings
from app.core.telemetry.logs import get_logger

if TYPE_CHECKING:
    from app.postgres.server import EmbeddedPostgres

# How often the server of another owner is asked whether it is there; the end of our own is seen.
CHECK_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 8.0
PATIENCE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1

log = get_logger(__name__)


class Database:
    """A database that is ready: a configured one, or our own, which is started again when it dies.

    `postgres` is our own server; `interrupted` tells whether to wait no longer for its start.
    """

    def __init__(
        self,
        url: str,
        postgres: "EmbeddedPostgres | None" = None,
        *,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.url = url
        self._postgres = postgres
        self._interrupted = interrupted
        self._pause_seconds = CHECK_SECONDS
        self._next_look = 0.0

    def ask(self, work: Callable[[str], None]) -> None:
        """Does what needs the database, again after ours died in the middle of it.

        The work is given the URL, and is harmless to do twice.

        Raises:
            OperationalError: It stays away.
        """
        from sqlalchemy.exc import OperationalError

        deadline = monotonic() + (PATIENCE_SECONDS if self._postgres else 0.0)
        while True:
            try:
                return work(self.url)
            except OperationalError:
                if monotonic() > deadline:
                    raise
            self.restart_if_ended()
            sleep(POLL_SECONDS)

    def announce_end(self) -> None:
        """Lets no other process rely on it, where it is ours."""
        if self._postgres is not None:
            self._postgres.announce_end()

    def restart_if_ended(self) -> None:
        """Starts our own again when it died, as often as it takes; slower after each failure.

        Whatever keeps it from starting, a full disk or a killer of what uses too much memory, may
        pass, and until then the others can still answer what needs no database.
        """
        if self._postgres is None or monotonic() < self._next_look:
            return
        import psycopg

        try:
            if not self._postgres.is_running:
                log.error("postgres ended, is started again", action="serve.restart")
                self._postgres.start(interrupted=self._interrupted)
        except (UnavailableError, psycopg.Error, OSError) as error:
            log.warning(
                "postgres did not start, is tried again",
                action="serve.restart",
                reason=str(error),
                seconds=self._pause_seconds,
            )
            self._next_look = monotonic() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        else:
            self._next_look = monotonic() + CHECK_SECONDS * self._postgres.is_adopted
            self._pause_seconds = CHECK_SECONDS


def database_address(settings: Settings) -> str:
    """Where the configured database is, or where our own will be."""
    from app.postgres.data_dir import address

    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return address(settings.postgres_dir)


def forget_postgres_variables() -> None:
    """Lets libpq, in this process and its children, read nothing from the environment.

    What people set for another database (PGHOSTADDR, PGSERVICE, PGREQUIREAUTH) would lead to it, or
    keep us from our own.
    """
    variables = os.environ  # noqa: TID251 - libpq's, not ours
    for name in [name for name in variables if name.startswith("PG")]:
        del variables[name]


def require_library(settings: Settings) -> None:
    """Returns when a database is configured, or ours was made before: none is made here.

    Raises:
        NotFoundError: There is none.
    """
    if settings.database_url is None and not settings.postgres_dir.exists():
        raise NotFoundError(f"No library in {settings.data_dir}")


def require_migrated(url: str) -> None:
    """Returns when the database is not older than this version.

    Raises:
        ConfigurationError: It is, or has no tables.
        UnavailableError: It cannot be asked.
    """
    from app.library import migrate

    with _refusals_in_one_line():
        migrate.require_migrated(url)


def _refusals() -> tuple[type[Exception], ...]:
    import psycopg
    from psycopg.errors import InsufficientPrivilege, InvalidSchemaName, ReadOnlySqlTransaction

    return (
        psycopg.OperationalError,
        InsufficientPrivilege,
        InvalidSchemaName,
        ReadOnlySqlTransaction,
    )


@contextmanager
def _refusals_in_one_line() -> Iterator[None]:
    """A configured database that is away, or refuses its user, as an error for whoever set it."""
    import psycopg
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(reason, _refusals()):
            raise
        first_line = str(reason).partition("\n")[0]
        raise UnavailableError(f"The database that DATABASE_URL names: {first_line}") from error


@contextmanager
def running_database(
    settings: Settings,
    *,
    is_shared: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Database]:
    """A migrated database: the configured one, or our own, started for the block or joined."""
    from app.library.migrate import upgrade

    with database_as_it_is(settings, is_shared=is_shared, interrupted=interrupted) as database:
        database.ask(upgrade)
        yield database


@contextmanager
def database_as_it_is(
    settings: Settings,
    *,
    is_shared: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Database]:
    """The same database at whatever revision it is, or empty.

    One that is started is shared with other processes if `is_shared`: a command that soon ends
    would take it away from them, so they wait.
    """
    from app.postgres.server import EmbeddedPostgres

    if settings.database_url is not None:
        with _refusals_in_one_line():
            yield Database(settings.database_url.get_secret_value())
        return
    forget_postgres_variables()
    with EmbeddedPostgres(
        settings.postgres_dir, pg_bin=settings.pg_bin, is_shared=is_shared
    ) as postgres:
        yield Database(postgres.url, postgres, interrupted=interrupted)
