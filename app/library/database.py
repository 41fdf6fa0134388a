"""Engines and sessions: psycopg 3 for everything, one transaction a session, limits on waiting."""

import asyncio
import hashlib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias, TypeVar

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from app.core.errors import JSON, ConfigurationError
from app.core.telemetry.logs import get_logger
from app.library.workspaces import WorkspaceSession

DRIVER: Final = "postgresql+psycopg"
RETRIED_STATES: Final = frozenset({"40001", "40P01"})
ATTEMPTS: Final = 3
# By itself Linux waits two hours for the answer of a server that has vanished.
_ALIVE: Final = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

Sessions: TypeAlias = async_sessionmaker[AsyncSession]
Result = TypeVar("Result")

log = get_logger(__name__)


def storable(value: JSON) -> JSON:
    """The value with everything replaced that jsonb refuses: NaN, infinities, NUL, surrogates."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {str(storable(str(key))): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def dump_json(value: JSON) -> str:
    """JSON text that Postgres accepts as jsonb; a number that is not finite becomes null."""
    return json.dumps(storable(value), allow_nan=False, separators=(",", ":"))


def database_url(url: str) -> URL:
    """The URL with the driver that is used here; `postgres://` is understood as well.

    A server that vanishes is given up within a minute, unless the URL says otherwise.

    Raises:
        ConfigurationError: It is no Postgres URL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("The database URL cannot be read") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ConfigurationError(f"Wanted a Postgres URL, found {parsed.get_backend_name()}")
    return parsed.set(drivername=DRIVER, query={**_ALIVE, **parsed.query})


def conninfo(url: str | URL) -> str:
    """The same database as libpq and psycopg name it."""
    parsed = database_url(url) if isinstance(url, str) else url
    _, parameters = parsed.get_dialect()().create_connect_args(parsed)
    return make_conninfo("", **parameters)


def with_options(url: str | URL, options: str) -> URL:
    """The URL with options of the server's beside those that it has, such as its search path."""
    parsed = database_url(url) if isinstance(url, str) else url
    present = parsed.normalized_query.get("options", ())
    return parsed.update_query_dict({"options": " ".join([*present, options])})


def make_engine(
    url: str | URL,
    *,
    pool_size: int = 10,
    statement_timeout_seconds: float = 60.0,
    lock_timeout_seconds: float = 10.0,
    idle_timeout_seconds: float = 60.0,
) -> AsyncEngine:
    """A pool of connections that are tested before use and never wait for ever.

    As many connections as are kept open, `pool_size`, may be opened besides under load. The
    timeouts are for a statement, for a lock, and for a pause inside a transaction.
    """
    limits = {
        "statement_timeout": statement_timeout_seconds,
        "lock_timeout": lock_timeout_seconds,
        "idle_in_transaction_session_timeout": idle_timeout_seconds,
    }
    options = " ".join(f"-c {name}={int(seconds * 1000)}" for name, seconds in limits.items())
    return create_async_engine(
        with_options(url, options),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=30.0,
        json_serializer=dump_json,
        connect_args={"connect_timeout": 10, "application_name": "vlibrary"},
    )


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions of the workspace `default`; leaving one without a commit rolls back."""
    return async_sessionmaker(
        engine,
        sync_session_class=WorkspaceSession,
        expire_on_commit=False,
        # A session may live longer than its first look at a row, and what it remembers must not
        # answer for the database.
        execution_options={"populate_existing": True},
    )


@asynccontextmanager
async def opened(url: str | URL, **limits: Any) -> AsyncIterator[Sessions]:  # noqa: ANN401
    """Sessions of a database for the block, with the limits of `make_engine`."""
    engine = make_engine(url, **limits)
    try:
        yield session_factory(engine)
    finally:
        await engine.dispose()


def without_transactions(sessions: Sessions) -> AsyncEngine:
    """The sessions' engine for looking things up: each statement sees its own moment.

    A transaction would cost two round trips. To be made once, since that takes time as well.
    """
    engine: AsyncEngine = sessions.kw["bind"]
    return engine.execution_options(isolation_level="AUTOCOMMIT")


async def read_one_moment(session: AsyncSession) -> None:
    """Makes all reads of the session's transaction, which begins, see the database as of now."""
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


async def run_transaction(
    sessions: async_sessionmaker[AsyncSession],
    work: Callable[[AsyncSession], Awaitable[Result]],
) -> Result:
    """What `work` returned, after its transaction was committed.

    The work is done again in a fresh transaction, three times in all, when Postgres asks for it:
    serialization failure (40001) or deadlock (40P01).

    Raises:
        DBAPIError: The database refused, or still asks for another try after the last one.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with sessions() as session, session.begin():
                return await work(session)
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state not in RETRIED_STATES or attempt == ATTEMPTS:
                raise
            await asyncio.sleep(0.02 * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextmanager
def logging_failures(message: str) -> Iterator[None]:
    """Ends a block that fails with a line in the log: for work that nobody waits for."""
    try:
        yield
    except (SQLAlchemyError, OSError, MemoryError) as error:
        log.warning(message, reason=type(error).__name__)
    except Exception:
        log.exception(message)


def lock_number(name: str) -> int:
    """The number of a lock of the database, which takes 64 bits for names."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
