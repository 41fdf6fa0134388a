"""`vlibrary backup` and `vlibrary restore`: a library as a folder or one file, and back."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import plain_console, print_result
from app.cli.database import database_as_it_is, require_library
from app.cli.options import AsJson, read_settings
from app.core.errors import ConfigurationError, NotFoundError
from app.core.folders import scratch_dir
from app.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.library.backups.files import BackupReader, BackupWriter
    from app.library.backups.manifest import Manifest
    from app.library.database import Sessions


def backup(
    target: Annotated[
        Path, typer.Argument(help="A new folder, or one file where it ends with .tar.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Copy the whole library, which may be in use: database, data sets, unfinished trainings."""
    from app.library.backups.files import writing_backup

    settings = read_settings()
    require_library(settings)
    with (
        database_as_it_is(settings) as database,
        writing_backup(target) as writer,
        _steps() as report,
    ):
        manifest = asyncio.run(_save(settings, database.url, writer, report=report))
    _print_manifest(manifest, target, verb="Saved", as_json=as_json)
    if manifest.damaged:
        print(
            "vlibrary: damaged or missing in the library itself: " + ", ".join(manifest.damaged),
            file=sys.stderr,
        )
        raise typer.Exit(code=1)


def restore(
    source: Annotated[Path, typer.Argument(help="What `backup` made.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Fill an empty library from a backup; every file and table is held against its digest."""
    from app.library.backups.files import reading_backup
    from app.library.migrate import upgrade

    settings = read_settings()
    with reading_backup(source) as reader, database_as_it_is(settings) as database:
        parent = scratch_dir(settings.data_dir)
        parent.mkdir(parents=True, exist_ok=True)
        with _steps() as report, tempfile.TemporaryDirectory(dir=parent) as folder:
            scratch = Path(folder) / "next"
            asyncio.run(_fill(settings, database.url, reader, scratch=scratch, report=report))
        upgrade(database.url)
        _print_manifest(reader.manifest, source, verb="Restored", as_json=as_json)


async def _save(
    settings: Settings, url: str, writer: "BackupWriter", *, report: "Callable[[str], None]"
) -> "Manifest":
    from app.library.backups.copies import save_library
    from app.library.database import conninfo
    from app.library.migrate import current_revision
    from app.library.storage import ObjectStore
    from app.postgres.dumps import dump_database

    revision = current_revision(url)
    if revision is None:
        raise NotFoundError("The database holds no library")

    def dump(schema: str, snapshot: str, path: Path) -> None:
        pg_bin = settings.pg_bin
        dump_database(conninfo(url), path, schema=schema, snapshot=snapshot, pg_bin=pg_bin)

    async with _patient(url) as sessions:
        store = ObjectStore(settings.objects_url)
        return await save_library(
            sessions, store, writer, revision=revision, dump=dump, report=report
        )


async def _fill(
    settings: Settings,
    url: str,
    reader: "BackupReader",
    *,
    scratch: Path,
    report: "Callable[[str], None]",
) -> None:
    from app.library.backups.copies import (
        check_files,
        check_restored,
        require_unused,
        restore_objects,
        schema_of,
    )
    from app.library.database import conninfo
    from app.library.migrate import current_revision, remove_tables, require_known
    from app.library.storage import ObjectStore
    from app.postgres.dumps import restore_database

    async with _patient(url) as sessions, sessions() as session:
        await require_unused(session)
        place = await schema_of(session)
    found = current_revision(url)
    require_known(found)
    if place != reader.manifest.place:
        raise ConfigurationError(
            f"The backup is of the schema {reader.manifest.place}, this library is in {place}: "
            f"set its search path, as ?options=-csearch_path%3D{reader.manifest.place} does"
        )
    await check_files(reader, scratch=scratch, report=report)
    await restore_objects(reader, ObjectStore(settings.objects_url), scratch=scratch, report=report)
    report("restoring the database")
    reader.extract(reader.manifest.dump, scratch)
    if found is not None:
        # Tables that a first start has made; nothing is in them.
        remove_tables(url)
    restore_database(conninfo(url), scratch, schema=place, pg_bin=settings.pg_bin)
    async with _patient(url) as sessions:
        await check_restored(sessions, reader.manifest)


@asynccontextmanager
async def _patient(url: str) -> "AsyncIterator[Sessions]":
    from app.library.database import opened
    from app.library.workspaces import in_all_workspaces

    limits = {"statement_timeout_seconds": 0, "idle_timeout_seconds": 0}
    async with opened(url, pool_size=1, **limits) as sessions:
        yield in_all_workspaces(sessions)


@contextmanager
def _steps() -> "Iterator[Callable[[str], None]]":
    with plain_console(stderr=True).status("beginning") as status:
        yield status.update


def _print_manifest(manifest: "Manifest", place: Path, *, verb: str, as_json: bool) -> None:
    tables = manifest.tables
    counts = ", ".join(
        f"{tables[name].rows} {words}"
        for name, words in (
            ("vectors", "vectors"),
            ("datasets", "data sets"),
            ("training_jobs", "trainings"),
            ("access_keys", "keys"),
            ("audit", "entries of the audit"),
        )
        if name in tables
    )
    size = f"{len(manifest.files)} files, {manifest.size_bytes:,} bytes"
    text = f"{verb} {counts}: {size}, {place}"
    print_result(manifest.model_dump(mode="json"), text, as_json=as_json)
