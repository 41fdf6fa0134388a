"""A backup of a library that may be in use, as of one moment, and a library out of a backup.

Nothing is touched by a backup before every file of it has its digest.
"""

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.errors import ConfigurationError, CorruptDataError, NotFoundError
from app.core.version import software_version
from app.library.backups.contents import (
    export_snapshot,
    hold_datasets,
    list_damaged,
    list_unfinished,
    postgres_version,
    read_contents,
    schema_of,
)
from app.library.backups.files import BackupReader, BackupWriter
from app.library.backups.manifest import DUMP, OBJECTS, Manifest
from app.library.database import Sessions
from app.library.migrate import known_revisions
from app.library.storage import ObjectStore, checkpoint_key


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
        snapshot, place = await export_snapshot(session), await schema_of(session)
        datasets = await hold_datasets(session)
        report("database")
        # Not in another thread, for which a command that is asked to end would wait.
        dump(place, snapshot, writer.scratch)
        writer.take(DUMP)
        damaged = [f"vector {reference}" for reference in await list_damaged(session)]
        for key, sha256, name in datasets:
            report(f"data set {name}")
            if not await _copy(store, key, writer) or writer.files[-1].sha256 != sha256:
                damaged.append(f"data set {name}")
        for job_id in await list_unfinished(session):
            report(f"checkpoint of {job_id}")
            await _copy(store, checkpoint_key(job_id), writer)
        report("digests")
        manifest = Manifest(
            software=software_version(),
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            revision=revision,
            place=place,
            postgres=await postgres_version(session),
            tables=await read_contents(session),
            files=writer.files,
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
