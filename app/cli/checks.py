"""What `vlibrary doctor` looks at, one function a thing, which raises where it is wrong.

Nothing is changed but a probe file.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.core.errors import CorruptDataError, NotFoundError, VLibraryError
from app.core.identifiers import new_id
from app.core.settings import Settings
from app.library.catalogue.filters import list_vectors
from app.library.database import Sessions
from app.library.datasets import list_datasets
from app.library.migrate import current_revision, newest_revision
from app.library.pages import MAX_LIMIT, Page
from app.library.records import DatasetRecord, VectorRecord
from app.library.search.index import Snapshot
from app.library.storage import ObjectStore
from app.library.task_keys import current_epochs, get_space, load_keys, orphaned_keys
from app.library.training.jobs import list_jobs
from app.library.vector_rows import get_blob

Check: TypeAlias = Callable[[], Awaitable[str]]
Record = TypeVar("Record")
_MOST_NAMED: Final = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check, and how many seconds it took."""

    name: str
    is_ok: bool
    detail: str
    seconds: float


async def examine(checks: Mapping[str, Check]) -> list[Finding]:
    """Every check's finding, in their order; a check that raises has found something."""
    findings = []
    for name, check in checks.items():
        began = monotonic()
        try:
            detail, is_ok = await check(), True
        except VLibraryError as error:
            detail, is_ok = error.message, False
        except DBAPIError as error:
            # What follows the first line is where to read about SQLAlchemy.
            detail, is_ok = str(error.orig).partition("\n")[0], False
        except Exception as error:  # noqa: BLE001 - a doctor must survive what it finds
            detail, is_ok = f"{type(error).__name__}: {error}", False
        seconds = round(monotonic() - began, 3)
        findings.append(Finding(name=name, is_ok=is_ok, detail=detail, seconds=seconds))
    return findings


def database_checks(settings: Settings, sessions: Sessions, *, url: str) -> dict[str, Check]:
    """The checks of the database, and of what it says about files."""
    objects = ObjectStore(settings.objects_url)
    return {
        "postgres": lambda: check_postgres(sessions),
        "migrations": lambda: check_migrations(url),
        "vectors": lambda: check_vectors(sessions),
        "datasets": lambda: check_datasets(sessions, objects),
        "keys": lambda: check_keys(sessions),
        "jobs": lambda: check_jobs(sessions, stalled_seconds=settings.job_stalled_seconds),
    }


async def check_postgres(sessions: Sessions) -> str:
    """The server's version."""
    async with sessions() as session:
        version = await session.scalar(text("SHOW server_version"))
    return f"version {version}"


async def check_migrations(url: str) -> str:
    """The revision, when it is the newest."""
    found = await asyncio.to_thread(current_revision, url)
    wanted = await asyncio.to_thread(newest_revision)
    if found != wanted:
        raise NotFoundError(f"The database is not migrated: wanted {wanted}, found {found}")
    return f"at {found}"


async def check_vectors(sessions: Sessions) -> str:
    """How many files there are, when each has its digest."""

    async def is_whole(vector: VectorRecord) -> bool:
        try:
            async with sessions() as session:
                await get_blob(session, vector.id)
        except CorruptDataError:
            return False
        return True

    found = [
        (f"{one.name}@{one.version}", await is_whole(one))
        async for one in _every(sessions, list_vectors)
    ]
    return _require_whole(found, "vector files are damaged")


async def check_datasets(sessions: Sessions, objects: ObjectStore) -> str:
    """How many datasets there are, when each file is there and has its digest."""
    found = [
        (one.name, await _is_whole(one, objects)) async for one in _every(sessions, list_datasets)
    ]
    return _require_whole(found, "dataset files are missing or damaged")


def _require_whole(found: Sequence[tuple[str, bool]], problem: str) -> str:
    if bad := [name for name, is_whole in found if not is_whole]:
        raise CorruptDataError(f"{len(bad)} of {len(found)} {problem}: {_some(bad)}")
    return f"{len(found)} files, all have their digest"


async def check_keys(sessions: Sessions) -> str:
    """How many keys there are, when the index can be made of them and each belongs to a vector."""
    num_vectors = 0
    async with sessions() as session:
        spaces = await current_epochs(session)
        for space in spaces:
            state = await get_space(session, space)
            keys = await load_keys(session, space)
            if orphans := await orphaned_keys(session, space):
                raise CorruptDataError(f"Keys without a vector in {space}: {_some(orphans)}")
            await asyncio.to_thread(Snapshot.build, space, keys=keys, **state._asdict())
            num_vectors += len(keys)
    return f"index made of {num_vectors} vectors in {len(spaces)} spaces"


async def check_jobs(sessions: Sessions, *, stalled_seconds: float) -> str:
    """How many jobs run, when a worker speaks for each."""
    async with sessions() as session:
        now = await session.scalar(text("SELECT clock_timestamp()"))
        running = (await list_jobs(session, state="running", limit=MAX_LIMIT)).items
    silent = [
        str(job.id)
        for job in running
        # Twice as long as it may take until the job is queued again.
        if now is not None and (now - job.heartbeat).total_seconds() > 2 * stalled_seconds
    ]
    if silent:
        raise NotFoundError(f"No worker speaks for {len(silent)} running jobs: {_some(silent)}")
    return f"{len(running)} running"


async def check_object_store(settings: Settings) -> str:
    """The store's URL, when a file can be written, read and deleted there."""
    objects = ObjectStore(settings.objects_url)
    key, data = f"doctor/{new_id()}", uuid.uuid4().bytes
    await objects.put_bytes(key, data)
    try:
        found = await objects.get_bytes(key)
    finally:
        await objects.delete(key)
    if found != data:
        raise CorruptDataError("The object store does not give back what was put there")
    return settings.objects_url


async def check_torch() -> str:
    """The versions that compute, and on what."""
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return f"torch {torch.__version__}, transformers {transformers.__version__}, {device}"


async def check_backbone(settings: Settings) -> str:
    """The backbone's identity, when it loads and can be steered."""
    from app.method.backbone.loading import load_backbone
    from app.method.steering.sites import find_sites

    backbone = await asyncio.to_thread(
        load_backbone,
        settings.backbone,
        revision=settings.backbone_revision,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
    )
    num_layers = len(find_sites(backbone.model))
    return f"{backbone.name}: {backbone.description.fingerprint[:12]}, {num_layers} layers"


async def _every(
    sessions: Sessions, list_page: Callable[..., Awaitable[Page[Record]]]
) -> AsyncIterator[Record]:
    cursor: str | None = None
    while True:
        async with sessions() as session:
            page = await list_page(session, limit=MAX_LIMIT, cursor=cursor)
        for record in page.items:
            yield record
        cursor = page.next_cursor
        if cursor is None:
            return


async def _is_whole(dataset: DatasetRecord, objects: ObjectStore) -> bool:
    try:
        return await objects.get_file(dataset.storage_key, Path(os.devnull)) == dataset.sha256
    except (NotFoundError, CorruptDataError):
        return False


def _some(names: Sequence[object]) -> str:
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return ", ".join(map(str, names[:_MOST_NAMED])) + more
