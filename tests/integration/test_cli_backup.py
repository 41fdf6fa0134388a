"""A library saved, restored elsewhere, and compared."""

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession
from typer.testing import CliRunner, Result

from app.cli.app import build
from app.core.access import DEFAULT_WORKSPACE
from app.core.errors import (
    ConfigurationError,
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from app.core.identifiers import sha256_hex
from app.library.access.access_keys import create_access_key
from app.library.aliases import set_alias
from app.library.backups.contents import read_contents
from app.library.backups.manifest import TableContents
from app.library.database import conninfo, make_engine, session_factory
from app.library.datasets import create_dataset, delete_dataset
from app.library.migrate import current_revision, newest_revision, remove_tables, upgrade
from app.library.records import DatasetRecord
from app.library.storage import ObjectStore, checkpoint_key, dataset_key
from app.library.training.jobs import enqueue_training
from app.library.workspaces import in_workspace, workspace_of
from tests.fakes.library import store

DATA = b"a data set's file"
# The same content in another workspace is a file of its own.
TEAM = "team.a"


@pytest.fixture
def elsewhere(database: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database without any table."""
    name = f"elsewhere_{abs(hash(request.node.name))}"
    with psycopg.connect(conninfo(database), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_url(database).set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@asynccontextmanager
async def session_of(
    url: str, *, workspace: str = DEFAULT_WORKSPACE
) -> AsyncIterator[AsyncSession]:
    engine = make_engine(url)
    async with in_workspace(session_factory(engine), workspace)() as session:
        yield session
    await engine.dispose()


async def add_dataset(session: AsyncSession, data: bytes) -> DatasetRecord:
    sha256 = sha256_hex(data)
    return await create_dataset(
        session,
        name="gone" if data == b"gone" else "parts",
        sha256=sha256,
        size_bytes=len(data),
        num_items=1,
        num_images=1,
        storage_key=dataset_key(sha256, workspace=workspace_of(session)),
    )


async def fill(url: str, objects: Path) -> str:
    """Puts some of everything into a library; gives the id of a job that has not ended."""
    files = ObjectStore(objects.as_uri())
    async with session_of(url) as session:
        await store(session, "gears", tags=["checked"])
        await store(session, "gears", seed=1, description="Zähne")
        await set_alias(session, "gears", "prod", version=1)
        await create_access_key(session, name="web", scopes=["read"], valid_days=None)
        parts, gone = [await add_dataset(session, data) for data in (DATA, b"gone")]
        for data in (DATA, b"gone"):
            await files.put_bytes(dataset_key(sha256_hex(data)), data)
        await delete_dataset(session, gone.id)
        job = await enqueue_training(session, name="gears", dataset_id=parts.id, config={})
        await session.commit()
    async with session_of(url, workspace=TEAM) as session:
        await files.put_bytes((await add_dataset(session, DATA)).storage_key, DATA)
        await session.commit()
    await files.put_bytes(checkpoint_key(job.id), b"half of a training")
    await files.put_bytes(checkpoint_key("00000000-0000-0000-0000-000000000000"), b"ended")
    return str(job.id)


async def contents(url: str) -> dict[str, TableContents]:
    async with session_of(url) as session:
        return await read_contents(session)


class Place:
    """A library of its own: a database and a folder."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.objects = folder / "objects"
        self._folder = folder
        self._monkeypatch = monkeypatch

    def run(self, *words: str | Path) -> Result:
        self._monkeypatch.setenv("DATABASE_URL", self.url)
        self._monkeypatch.setenv("VLIBRARY_DATA_DIR", str(self._folder))
        return CliRunner().invoke(build(), [str(word) for word in words])

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.objects)): path.read_bytes()
            for path in self.objects.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def library(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(database, tmp_path / "library", monkeypatch)


@pytest.fixture
def other(elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(elsewhere, tmp_path / "other", monkeypatch)


def edited(manifest: Path, **changes: object) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


@pytest.mark.parametrize("name", ["saved", "saved.tar"])
def test_what_is_restored_equals_what_was_saved(
    library: Place, other: Place, tmp_path: Path, *, name: str
) -> None:
    job_id = asyncio.run(fill(library.url, library.objects))
    before = asyncio.run(contents(library.url))
    saved = library.run("backup", tmp_path / name, "--json")
    assert saved.exit_code == 0, saved.output
    assert json.loads(saved.stdout)["tables"]["vectors"]["rows"] == 2
    if name == "saved.tar":
        # Tables of a first start, in which nothing is.
        upgrade(other.url)
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


def test_damage_is_found_before_anything_is_touched(
    library: Place, other: Place, tmp_path: Path
) -> None:
    asyncio.run(fill(library.url, library.objects))
    folder = tmp_path / "saved"
    assert library.run("backup", folder).exit_code == 0
    good = (folder / "library.dump").read_bytes()
    for damage in (good[:-1], good[:100] + bytes([good[100] ^ 1]) + good[101:]):
        (folder / "library.dump").write_bytes(damage)
        assert isinstance(other.run("restore", folder).exception, CorruptDataError)
    (folder / "library.dump").unlink()
    assert isinstance(other.run("restore", folder).exception, CorruptDataError)
    (folder / "library.dump").write_bytes(good)
    manifest = (folder / "backup.json").read_text()
    for changes, error in (
        ({"revision": "9999"}, ConfigurationError),
        ({"version": 2}, InvalidInputError),
        ({"files": []}, InvalidInputError),
    ):
        edited(folder / "backup.json", **changes)
        assert isinstance(other.run("restore", folder).exception, error)
        (folder / "backup.json").write_text(manifest)
    assert current_revision(other.url) is None
    assert other.files() == {}


def test_tables_that_do_not_come_back_alike_are_told(
    library: Place, other: Place, tmp_path: Path
) -> None:
    asyncio.run(fill(library.url, library.objects))
    folder = tmp_path / "saved"
    assert library.run("backup", folder).exit_code == 0
    tables = json.loads((folder / "backup.json").read_text())["tables"]
    tables["vectors"]["sha256"] = "0" * 64
    edited(folder / "backup.json", tables=tables)
    found = other.run("restore", folder).exception
    assert isinstance(found, CorruptDataError)
    assert found.message.endswith("differ from the backup: vectors")


def test_what_is_damaged_in_the_library_is_told_and_the_rest_is_saved(
    library: Place, other: Place, tmp_path: Path
) -> None:
    asyncio.run(fill(library.url, library.objects))
    with psycopg.connect(conninfo(library.url), autocommit=True) as connection:
        connection.execute("UPDATE vectors SET blob = set_byte(blob, 9, 0) WHERE version = 2")
    (library.objects / dataset_key(sha256_hex(DATA))).unlink()
    saved = library.run("backup", tmp_path / "saved.tar")
    assert saved.exit_code == 1
    assert "vector gears@2, data set parts" in saved.stderr
    assert other.run("restore", tmp_path / "saved.tar").exit_code == 0


def test_a_backup_replaces_nothing_and_leaves_nothing_behind(
    library: Place, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.tar"
    kept.write_bytes(b"mine")
    assert isinstance(library.run("backup", kept).exception, ConflictError)
    assert kept.read_bytes() == b"mine"
    (tmp_path / "empty").mkdir()
    assert library.run("backup", tmp_path / "empty").exit_code == 0
    assert (tmp_path / "empty").stat().st_mode & 0o077 == 0
    assert library.run("backup", tmp_path / "one.tar").exit_code == 0
    assert (tmp_path / "one.tar").stat().st_mode & 0o077 == 0
    remove_tables(library.url)
    try:
        assert isinstance(library.run("backup", tmp_path / "none").exception, NotFoundError)
    finally:
        upgrade(library.url)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "empty",
        "kept.tar",
        "library",
        "one.tar",
    ]


def test_what_is_no_backup_is_refused(other: Place, tmp_path: Path) -> None:
    assert isinstance(other.run("restore", tmp_path / "none").exception, NotFoundError)
    (tmp_path / "text.tar").write_text("not a tar")
    assert isinstance(other.run("restore", tmp_path / "text.tar").exception, InvalidInputError)
    with tarfile.open(tmp_path / "bare.tar", "w"):
        pass
    assert isinstance(other.run("restore", tmp_path / "bare.tar").exception, CorruptDataError)


def test_a_library_in_use_is_not_filled(library: Place, tmp_path: Path) -> None:
    asyncio.run(fill(library.url, library.objects))
    assert library.run("backup", tmp_path / "saved").exit_code == 0
    with psycopg.connect(conninfo(library.url), autocommit=True) as connection:
        connection.execute("TRUNCATE vectors, datasets, training_jobs, access_keys CASCADE")
        found = library.run("restore", tmp_path / "saved").exception
    assert isinstance(found, ConflictError)
    assert "stop the api and the workers" in found.message


def test_a_database_that_refuses_is_told_in_its_own_words(
    library: Place, other: Place, tmp_path: Path
) -> None:
    assert library.run("backup", tmp_path / "saved").exit_code == 0
    with psycopg.connect(conninfo(other.url), autocommit=True) as connection:
        connection.execute("CREATE TABLE audit (mine text)")
    found = other.run("restore", tmp_path / "saved").exception
    assert isinstance(found, UnavailableError)
    assert 'relation "audit" already exists' in found.message
