"""A library saved, restored elsewhere, and compared."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from app.cli.processes.serve import CODE_FOLDER
from app.core.errors import (
    ConfigurationError,
    ConflictError,
)
from app.core.identifiers import sha256_hex
from app.library.database import conninfo
from app.library.migrate import current_revision, newest_revision, upgrade
from app.library.storage import checkpoint_key, dataset_key
from tests.fakes.backups import DATA, TEAM, Place, contents, fill, session_of
from tests.fakes.library import store
from tests.fakes.waiting import wait_until


@pytest.mark.parametrize("name", ["saved", "saved.tar"])
def test_what_is_restored_equals_what_was_saved(
    library: Place, other: Place, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job_id = asyncio.run(fill(library.url, library.objects))
    before = asyncio.run(contents(library.url))
    saved = library.run("backup", tmp_path / name, "--json")
    assert saved.exit_code == 0, saved.output
    assert json.loads(saved.stdout)["tables"]["vectors"]["rows"] == 2
    if name == "saved.tar":
        # Tables of a first start, in which nothing is.
        upgrade(other.url)
    with monkeypatch.context() as patched:
        # A container has little room there.
        patched.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        restored = other.run("restore", tmp_path / name)
    assert restored.exit_code == 0, restored.exception
    assert "2 vectors, 3 data sets, 1 trainings, 1 keys" in restored.stdout
    assert asyncio.run(contents(other.url)) == before
    assert other.files() == {
        dataset_key(sha256_hex(DATA)): DATA,
        dataset_key(sha256_hex(DATA), workspace=TEAM): DATA,
        checkpoint_key(job_id): b"half of a training",
    }
    # What is not empty any more is left alone.
    again = other.run("restore", tmp_path / name)
    assert isinstance(again.exception, ConflictError)
    assert "2 rows in vectors" in str(again.exception)


def test_a_library_in_a_schema_of_its_own_is_saved_and_restored(
    other: Place, tmp_path: Path
) -> None:
    elsewhere = other.url
    with psycopg.connect(conninfo(elsewhere), autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Ours"; CREATE TABLE public.stranger ()')
    there = make_url(elsewhere).update_query_dict({"options": '-c search_path="Ours"'})
    other.url = there.render_as_string(hide_password=False)
    upgrade(other.url)
    asyncio.run(fill(other.url, other.objects))
    before = asyncio.run(contents(other.url))
    assert before["vectors"].rows == 2
    assert "stranger" not in before
    saved = other.run("backup", tmp_path / "saved", "--json")
    assert saved.exit_code == 0, saved.output
    assert json.loads(saved.stdout)["tables"]["vectors"]["rows"] == 2

    with psycopg.connect(conninfo(elsewhere), autocommit=True) as connection:
        connection.execute('DROP SCHEMA "Ours" CASCADE; CREATE SCHEMA "Ours"')
    ours, other.url = other.url, elsewhere
    refused = other.run("restore", tmp_path / "saved")
    assert isinstance(refused.exception, ConfigurationError)
    assert "schema Ours, this library is in public" in str(refused.exception)
    other.url = ours
    restored = other.run("restore", tmp_path / "saved")
    assert restored.exit_code == 0, restored.exception
    assert asyncio.run(contents(other.url)) == before


def test_a_restored_library_goes_on_where_it_was(
    library: Place, other: Place, tmp_path: Path
) -> None:
    asyncio.run(fill(library.url, library.objects))
    assert library.run("backup", tmp_path / "saved").exit_code == 0
    assert other.run("restore", tmp_path / "saved").exit_code == 0

    async def add() -> int:
        async with session_of(other.url) as session:
            made = await store(session, "gears", seed=2)
            await session.commit()
            return made.version

    assert asyncio.run(add()) == 3


def test_a_backup_of_older_tables_is_migrated(other: Place, tmp_path: Path) -> None:
    upgrade(other.url, revision="0003")
    assert other.run("backup", tmp_path / "saved").exit_code == 0
    # A library whose tables are newer, but in which nothing is.
    upgrade(other.url)
    restored = other.run("restore", tmp_path / "saved")
    assert restored.exit_code == 0, restored.exception
    assert current_revision(other.url) == newest_revision()


def test_a_backup_that_is_asked_to_end_ends_with_what_it_runs(
    database: str, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "pg_dump"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" && exit\n'
        # In its place at once, so that nobody reads it before it is written.
        f"echo $$ > {tmp_path}/number && mv {tmp_path}/number {tmp_path}/dumping\n"
        "exec sleep 240\n"
    )
    program.chmod(0o755)
    settings = {"DATABASE_URL": database, "DATA_DIR": str(tmp_path), "PG_BIN": str(programs)}
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "app", "backup", str(tmp_path / "saved" / "one")],
        cwd=CODE_FOLDER,
        env={**os.environ, **{f"VLIBRARY_{name}": one for name, one in settings.items()}},  # noqa: TID251 - Python's
    )
    wait_until((tmp_path / "dumping").exists)
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM
    assert list((tmp_path / "saved").iterdir()) == []
    assert not Path(f"/proc/{(tmp_path / 'dumping').read_text().strip()}").exists()
