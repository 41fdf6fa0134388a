"""A library, and a place for another one."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from app.library.database import conninfo
from tests.fakes.backups import Place


@pytest.fixture
def elsewhere(database: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database without any table."""
    name = f"elsewhere_{abs(hash(request.node.name))}"
    with psycopg.connect(conninfo(database), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_url(database).set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def library(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(database, tmp_path / "library", monkeypatch)


@pytest.fixture
def other(elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(elsewhere, tmp_path / "other", monkeypatch)
