"""A backup of a library that may be in use: database and objects as of one moment."""

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.errors import CorruptDataError, NotFoundError
from app.core.version import software_version
from app.library.backups.contents import (
    export_snapshot,
    hold_datasets,
    list_damaged,
    list_unfinished,
    postgres_version,
    read_contents,
)
from app.library.backups.files import BackupWriter
from app.library.backups.manifest import DUMP, OBJECTS, Manifest
from app.library.database import Sessions
from app.library.storage import ObjectStore, checkpoint_key


async def save_library(
    sessions: Sessions,
    store: ObjectStore,
    writer: BackupWriter,
    *,
    revision: str,
    dump: Callable[[str, Path], None],
    report: Callable[[str], None],
) -> Manifest:
    """Writes everything that a library holds, as one transaction sees it.

    Data sets cannot be deleted meanwhile. Checkpoints of unfinished trainings are as they are when
    their turn comes.

    Statements and pauses of the sessions have no limit. `dump` writes the database, as a snapshot
    of that name sees it, to a file.
    """
    async with sessions() as session:
        snapshot = await export_snapshot(session)
        datasets = await hold_datasets(session)
        report("database")
        await asyncio.to_thread(dump, snapshot, writer.scratch)
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
