"""A backup of a library that may be in use, as of one moment, and a library out of a backup.

Nothing is touched by a backup before every file of it has its digest. What a database holds is told
without knowing its tables, so a backup works for every revision: it is made before an upgrade too.
"""

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import ConfigurationError, ConflictError, CorruptDataError, NotFoundError
from app.core.jobs import UNFINISHED_STATES
from app.core.version import software_version
from app.library.backups.files import BackupReader, BackupWriter
from app.library.backups.manifest import DUMP, OBJECTS, Manifest, TableContents
from app.library.database import Sessions, read_one_moment
from app.library.migrate import known_revisions
from app.library.storage import ObjectStore, checkpoint_key

# What only those put there who use a library. Everything else may stem from a first start.
USED: Final = ("vectors", "datasets", "training_jobs", "access_keys")

# A row's text holds every column and does not depend on where the row lies.
_CONTENTS: Final = """
SELECT count(*) AS rows,
    encode(sha256(coalesce(string_agg(digest, ''::bytea ORDER BY digest), ''::bytea)), 'hex')
        AS sha256
FROM (SELECT sha256(convert_to(item::text, 'UTF8')) AS digest FROM {table} item) digests
"""
_TABLES: Final = (
    "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema() "
    "ORDER BY tablename"
)
_DAMAGED: Final = """
SELECT name || '@' || version FROM vectors
WHERE encode(sha256(blob), 'hex') <> sha256 ORDER BY name, version
"""
# None of them is deleted until the transaction ends.
_DATASETS: Final = """
SELECT item.storage_key, item.sha256, item.name FROM datasets item
WHERE to_jsonb(item) ->> 'deleted' IS NULL ORDER BY item.id
FOR KEY SHARE
"""
_UNFINISHED: Final = "SELECT id::text FROM training_jobs WHERE state = ANY(:states)"
_OTHERS: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def save_library(
    sessions: Sessions,
    store: ObjectStore,
    writer: BackupWriter,
    *,
    revision: str,
    dump: Callable[[str, str, Path], None],
    report: Callable[[str], None],
) -> Manifest:
    """Writes everything that a library holds, as one transaction sees it.

    Data sets cannot be deleted meanwhile. Checkpoints of unfinished trainings are as they are when
    their turn comes.

    Statements and pauses of the sessions have no limit. `dump` writes a schema, as a snapshot of
    that name sees it, to a file.
    """
    async with sessions() as session:
        await read_one_moment(session)
        snapshot = (await session.execute(text("SELECT pg_export_snapshot()"))).scalar_one()
        place = await schema_of(session)
        datasets = (await session.execute(text(_DATASETS))).all()
        report("database")
        # Not in another thread, for which a command that is asked to end would wait.
        dump(place, snapshot, writer.scratch)
        writer.take(DUMP)
        damaged = [f"vector {reference}" for reference in await session.scalars(text(_DAMAGED))]
        for key, sha256, name in datasets:
            report(f"data set {name}")
            if not await _copy(store, key, writer) or writer.files[-1].sha256 != sha256:
                damaged.append(f"data set {name}")
        unfinished = {"states": list(UNFINISHED_STATES)}
        for job_id in (await session.scalars(text(_UNFINISHED), unfinished)).all():
            report(f"checkpoint of {job_id}")
            await _copy(store, checkpoint_key(job_id), writer)
        report("digests")
        number = (await session.execute(text("SHOW server_version_num"))).scalar_one()
        manifest = Manifest(
            software=software_version(),
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            revision=revision,
            place=place,
            postgres=int(number) // 10000,
            tables=await read_contents(session),
            files=tuple(writer.files),
            damaged=tuple(damaged),
        )
    writer.finish(manifest)
    return manifest


async def _copy(store: ObjectStore, key: str, writer: BackupWriter) -> bool:
    try:
        # What does not match its digest is copied as it is, and told at the end.
        with suppress(CorruptDataError):
            await store.get_file(key, writer.scratch)
    except NotFoundError:
        return False
    writer.take(f"{OBJECTS}{key}")
    return True


async def check_files(
    reader: BackupReader, *, scratch: Path, report: Callable[[str], None]
) -> None:
    """Returns when every file of a backup has its digest and this software knows its tables.

    Raises:
        CorruptDataError: A file is missing or damaged.
        ConfigurationError: A newer version has written it.
    """
    revision = reader.manifest.revision
    if revision not in known_revisions():
        raise ConfigurationError(
            f"The backup is of revision {revision} by version {reader.manifest.software}, "
            "which this version does not know: install a newer one"
        )
    for file in reader.manifest.files:
        report(f"checking {file.path}")
        await asyncio.to_thread(reader.extract, file, scratch)


async def restore_objects(
    reader: BackupReader, store: ObjectStore, *, scratch: Path, report: Callable[[str], None]
) -> None:
    """Puts every object of a backup into a store.

    Raises:
        CorruptDataError: A file is missing or damaged.
        StorageFullError: There is no room; it may be repeated once there is.
    """
    for file in reader.manifest.files:
        if file.path == DUMP:
            continue
        report(f"restoring {file.path}")
        await asyncio.to_thread(reader.extract, file, scratch)
        await store.put_file(file.path.removeprefix(OBJECTS), scratch)


async def check_restored(sessions: Sessions, manifest: Manifest) -> None:
    """Returns when every table holds what it held when the backup was made.

    Raises:
        CorruptDataError: One does not.
    """
    async with sessions() as session:
        found = await read_contents(session)
    differing = sorted(
        table
        for table in manifest.tables.keys() | found.keys()
        if manifest.tables.get(table) != found.get(table)
    )
    if differing:
        raise CorruptDataError(f"Restored tables differ from the backup: {', '.join(differing)}")


async def read_contents(session: AsyncSession) -> dict[str, TableContents]:
    """Rows and digest of every table, by name."""
    # These decide how a moment is written.
    await session.execute(text("SET LOCAL timezone = 'UTC'"))
    await session.execute(text("SET LOCAL datestyle = 'ISO, YMD'"))
    contents = {}
    for table in (await session.scalars(text(_TABLES))).all():
        found = (await session.execute(text(_CONTENTS.format(table=table)))).one()
        contents[table] = TableContents(rows=found.rows, sha256=found.sha256)
    return contents


async def schema_of(session: AsyncSession) -> str:
    """Where the library's tables are, or will be made.

    Raises:
        ConfigurationError: The search path names no schema that there is.
    """
    name: str | None = await session.scalar(text("SELECT current_schema()"))
    if name is None:
        raise ConfigurationError("The database has no schema of its search path: create it first")
    return name


async def require_unused(session: AsyncSession) -> None:
    """Returns when nothing was ever stored in the database and nobody else is connected to it.

    Raises:
        ConflictError: Something was, or somebody is.
    """
    tables = (await session.scalars(text(_TABLES))).all()
    for table in USED:
        if table not in tables:
            continue
        count = await session.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608 - our names
        if count:
            raise ConflictError(
                f"A backup is restored into an empty library; this one has {count} rows in {table}"
            )
    if await session.scalar(text(_OTHERS)):
        raise ConflictError("Others are connected to this database: stop the api and the workers")
