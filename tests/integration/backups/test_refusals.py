"""Backups and libraries that are damaged, in use or none."""

import asyncio
import errno
import json
import tarfile
from pathlib import Path

import psycopg
import pytest

from app.core.errors import (
    ConfigurationError,
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from app.core.identifiers import sha256_hex
from app.library.backups.files import writing_backup
from app.library.database import conninfo
from app.library.migrate import current_revision, remove_tables, upgrade
from app.library.storage import dataset_key
from tests.fakes.backups import DATA, Place, edited, fill


@pytest.fixture
def folder(library: Place, tmp_path: Path) -> Path:
    """A backup of a library with something of everything."""
    asyncio.run(fill(library.url, library.objects))
    assert library.run("backup", tmp_path / "saved").exit_code == 0
    return tmp_path / "saved"


def test_damage_is_found_before_anything_is_touched(folder: Path, other: Place) -> None:
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


def test_tables_that_do_not_come_back_alike_are_told(folder: Path, other: Place) -> None:
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
    found = other.run("restore", tmp_path / "text.tar").exception
    assert isinstance(found, InvalidInputError)
    assert found.message.endswith("text.tar is no backup: file could not be opened successfully")
    with tarfile.open(tmp_path / "bare.tar", "w"):
        pass
    assert isinstance(other.run("restore", tmp_path / "bare.tar").exception, CorruptDataError)


def test_a_folder_that_was_packed_by_hand_is_a_backup(
    folder: Path, other: Place, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname=".")
    assert other.run("restore", tmp_path / "packed.tar.gz").exit_code == 0


def test_a_backup_that_finds_no_room_names_its_place(tmp_path: Path) -> None:
    target = tmp_path / "library.tar"
    with pytest.raises(OSError, match=r"library\.tar"), writing_backup(target):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_library_in_use_is_not_filled(folder: Path, library: Place) -> None:
    with psycopg.connect(conninfo(library.url), autocommit=True) as connection:
        connection.execute("TRUNCATE vectors, datasets, training_jobs, access_keys CASCADE")
        found = library.run("restore", folder).exception
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
