import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.library.database import conninfo, make_engine, session_factory
from app.library.migrate import upgrade
from app.postgres.server import EmbeddedPostgres


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents any account may pass, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def pristine() -> Iterator[Path]:
    """A folder whose cluster was made once, since making one takes a while."""
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    with EmbeddedPostgres(folder / "postgres") as server:
        assert server.is_running
    yield folder / "postgres"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server whose database is migrated."""
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    with EmbeddedPostgres(folder / "postgres") as server:
        with psycopg.connect(conninfo(server.url), autocommit=True) as connection:
            # No test of this server cuts the power.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        upgrade(server.url)
        yield server
    shutil.rmtree(folder)


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """URL of the migrated database with all tables empty."""
    yield postgres.url
    with psycopg.connect(conninfo(postgres.url), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = connection.execute(
            "SELECT tablename FROM pg_tables "
            "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchall()
        names = sql.SQL(", ").join(sql.Identifier(name) for (name,) in tables)
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(names))


@pytest.fixture
async def sessions(database: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    # A busy machine must not turn waiting into failing.
    engine = make_engine(database, lock_timeout_seconds=60)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture
async def session(
    sessions: async_sessionmaker[AsyncSession],
) -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened
