"""A library out of a backup: nothing is touched before every file of it has its digest."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from app.core.errors import ConfigurationError, CorruptDataError
from app.library.backups.contents import read_contents
from app.library.backups.files import BackupReader
from app.library.backups.manifest import DUMP, OBJECTS, Manifest
from app.library.database import Sessions
from app.library.migrate import known_revisions
from app.library.storage import ObjectStore


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
