"""Connections of the pool: one that the server ended is replaced before it is used."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.library.database import conninfo, make_engine

pytestmark = pytest.mark.anyio

PID = text("SELECT pg_backend_pid()")


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database, pool_size=1)
    yield engine
    await engine.dispose()


async def pid_of(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(PID) or 0)


async def test_a_connection_that_was_ended_is_replaced(engine: AsyncEngine, database: str) -> None:
    first = await pid_of(engine)
    with psycopg.connect(conninfo(database), autocommit=True) as other:
        # The time is that for which the other end is waited for.
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    second = await pid_of(engine)
    assert second != first
    assert await pid_of(engine) == second


async def test_a_connection_that_was_told_something_else_is_kept(
    engine: AsyncEngine, database: str
) -> None:
    async with engine.connect() as connection:
        first = await connection.scalar(PID)
        await connection.execute(text("LISTEN told"))
        await connection.commit()
    with psycopg.connect(conninfo(database), autocommit=True) as other:
        other.execute("NOTIFY told")
    assert await pid_of(engine) == first


async def test_a_silent_connection_is_used_without_asking_it(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await pid_of(engine)
    pings: list[object] = []
    monkeypatch.setattr(engine.dialect, "do_ping", pings.append)
    assert await pid_of(engine) == first
    assert not pings
