import sys

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from app.cli.app import main
from app.library.database import conninfo
from app.library.migrate import upgrade
from app.postgres.server import EmbeddedPostgres


@pytest.mark.parametrize("found", ["None", "0009"])
def test_an_api_does_not_start_on_a_database_that_is_older(
    found: str,
    *,
    postgres: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"older_{found}".lower()
    with psycopg.connect(conninfo(postgres.url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = make_url(postgres.url).set(database=name).render_as_string(hide_password=False)
    if found != "None":
        upgrade(url, revision=found)
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("VLIBRARY_WORKER_SECRET", "between us")
    monkeypatch.setattr(sys, "argv", ["vlibrary", "api"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vlibrary: The database is not migrated: wanted ")
    assert line.endswith(f"found {found}; run vlibrary migrate")


@pytest.mark.parametrize(
    ("setting", "value", "refusal"),
    [
        ("default_transaction_read_only", "on", "in a read-only transaction"),
        ("search_path", "nowhere", "no schema has been selected to create in"),
    ],
)
def test_a_database_in_which_nothing_can_be_made_is_one_line(
    setting: str,
    value: str,
    refusal: str,
    *,
    postgres: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = sql.Identifier(f"refusing_by_{setting}")
    with psycopg.connect(conninfo(postgres.url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        change = sql.SQL("ALTER DATABASE {} SET {} = {}")
        connection.execute(change.format(name, sql.Identifier(setting), sql.Literal(value)))
    url = make_url(postgres.url).set(database=f"refusing_by_{setting}")
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
    monkeypatch.setattr(sys, "argv", ["vlibrary", "migrate"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vlibrary: The database that DATABASE_URL names: ")
    assert refusal in line
