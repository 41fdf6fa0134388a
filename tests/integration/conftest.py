import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.library.database import conninfo, make_engine, session_factory
from app.library.embedded import EmbeddedPostgres
from app.library.migrate import upgrade

TEMPLATE = "vlibrary_template"


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
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server with one migrated database that others are copied from."""
    folder = Path(tempfile.mkdtemp(prefix="vlibrary-test-", dir="/tmp"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    with EmbeddedPostgres(folder / "postgres") as server:
        with psycopg.connect(conninfo(server.url), autocommit=True) as connection:
            # No test of this server cuts the power.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        upgrade(make_url(server.url).set(database=TEMPLATE))
        yield server
    shutil.rmtree(folder)


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """URL of a fresh, migrated database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(conninfo(postgres.url), autocommit=True) as connection:
        new, template = sql.Identifier(name), sql.Identifier(TEMPLATE)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(new, template))
        yield make_url(postgres.url).set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(new))


@pytest.fixture
async def sessions(database: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = make_engine(database)
    yield session_factory(engine)
    await engine.dispose()


@pytest.fixture
async def session(
    sessions: async_sessionmaker[AsyncSession],
) -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened
