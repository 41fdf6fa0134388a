"""Data sets: addressed by their content, called by names. The files lie in the object store."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, cast

from sqlalchemy import Select, Text, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import (
    JSON,
    ConflictError,
    InvalidDatasetError,
    NotFoundError,
    StorageFullError,
    TooLargeError,
)
from app.core.identifiers import check_description, check_name, is_id, new_id
from app.core.jobs import UNFINISHED_STATES
from app.core.pictures import PictureLimits
from app.core.telemetry.logs import get_logger
from app.library.access.audit import write_audit
from app.library.database import lock_number
from app.library.pages import Page, read_page
from app.library.records import DatasetRecord, DatasetReport, record_of
from app.library.tables import DatasetNameRow, DatasetRow, JobRow
from app.library.workspaces import workspace_of

CHECK_SCRIPT: Final = ("-m", "app.library.uploads.dataset_check")
CHECK_TIMEOUT_SECONDS: Final = 3600.0
CHECK_MEMORY_BYTES: Final = 1024 * 1024 * 1024

log = get_logger(__name__)
# What finds a data set: the name it had first, or else another, or its id when all have moved.
_CALLED = func.coalesce(
    select(DatasetNameRow.name)
    .where(DatasetNameRow.dataset_id == DatasetRow.id)
    .order_by(DatasetNameRow.name != DatasetRow.name, DatasetNameRow.updated)
    .limit(1)
    .correlate(DatasetRow)
    .scalar_subquery(),
    DatasetRow.id.cast(Text),
)


async def convert_upload(
    path: Path,
    target: Path,
    *,
    limits: PictureLimits,
    skip_bad: bool = False,
    text_only: bool = False,
    columns: Mapping[str, str] | None = None,
    question: str | None = None,
    memory_bytes: int = CHECK_MEMORY_BYTES,
    most_bytes: int | None = None,
) -> DatasetReport:
    """What a file of any known layout holds, written to `target` in the one layout that is stored.

    Another process reads the file within limits of memory and time. It ends with whoever awaits
    this, be that cancelled or killed.

    `columns` tells which of the file's columns is which, where names differ, and `question` what is
    asked about every picture of a file that asks nothing. Rows that cannot be
    used are left out with `skip_bad`, and those without a picture are taken with `text_only`;
    otherwise either refuses the file. `most_bytes` may be written.

    Raises:
        InvalidDatasetError: It is no data set, has rows that cannot be used, or exceeds a limit.
        StorageFullError: There is no room for what is made of it.
        TooLargeError: That would be too large.
    """
    order = {
        "source": str(path),
        "target": str(target),
        "columns": dict(columns or {}),
        "question": question,
        "limits": asdict(limits),
        "options": {"skip_bad": skip_bad, "text_only": text_only, "most_bytes": most_bytes},
    }
    command = [sys.executable, "-I", *CHECK_SCRIPT, json.dumps(order), str(memory_bytes)]
    process = await asyncio.create_subprocess_exec(
        *command,
        env={
            "LC_ALL": "C.UTF-8",
            # Arrow's other allocators reserve address space that would count against the limit.
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "TMPDIR": str(target.parent),
        },
        # Never written to: it closes when this process ends.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stdout = cast("asyncio.StreamReader", process.stdout)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            output = await stdout.read()
            status = await process.wait()
    except TimeoutError:
        raise InvalidDatasetError("Not a data set: it takes too long to read") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        # What it said may quote the file; how it ended tells a limit from a fault of ours.
        log.warning("the check of a data set ended early", status=status)
        raise InvalidDatasetError("Not a data set: it cannot be read within the limits")
    verdict = json.loads(output)
    if verdict.get("is_full"):
        raise StorageFullError("There is no room to convert the data set")
    if reason := verdict.get("is_large"):
        raise TooLargeError(reason)
    if reason := verdict.get("refused"):
        raise InvalidDatasetError(reason, details=verdict["details"])
    return DatasetReport(**verdict["report"])


async def create_dataset(
    session: AsyncSession,
    *,
    name: str,
    sha256: str,
    size_bytes: int,
    num_items: int,
    num_images: int,
    storage_key: str,
    description: str = "",
    report: Mapping[str, JSON] | None = None,
) -> DatasetRecord:
    """The data set with this content, stored if it is new, and now called by this name.

    Its report is the one that is given, with a note where the name meant another until now. What is
    stored of description and report stays while the content is known. Whoever finds the file gone
    after the commit puts it again: it was dropped before this was known.

    Raises:
        InvalidInputError: The name or text is malformed.
    """
    found = dict(report or {})
    described = {
        "name": check_name(name),
        "description": check_description(description),
        "report": found,
    }
    await hold_file(session, storage_key)
    statement = (
        insert(DatasetRow)
        .values(
            id=new_id(),
            workspace=workspace_of(session),
            sha256=sha256,
            size_bytes=size_bytes,
            num_items=num_items,
            num_images=num_images,
            format="parquet",
            storage_key=storage_key,
            **described,
        )
        # A data set that was deleted comes back when its content does, as it is told of now.
        .on_conflict_do_update(
            index_elements=["workspace", "sha256"],
            set_={"deleted": None, **described},
            where=DatasetRow.deleted.is_not(None),
        )
        .returning(DatasetRow.id)
    )
    created = await session.scalar(statement)
    same = select(DatasetRow).where(DatasetRow.sha256 == sha256)
    row = (await session.scalars(same)).one()
    held = select(DatasetNameRow.dataset_id).where(DatasetNameRow.name == name).with_for_update()
    previous = await session.scalar(held)
    target = {"dataset_id": row.id, "updated": func.clock_timestamp()}
    naming = insert(DatasetNameRow).values(workspace=workspace_of(session), name=name, **target)
    naming = naming.on_conflict_do_update(index_elements=["workspace", "name"], set_=target)
    await session.execute(naming)
    if created is not None:
        details = {"name": name, "sha256": sha256}
        await write_audit(session, action="dataset.create", subject=str(row.id), details=details)
    if previous != row.id and (created is None or previous is not None):
        moved = {"name": name, "previous": None if previous is None else str(previous)}
        await write_audit(session, action="dataset.name", subject=str(row.id), details=moved)
    if previous not in {None, row.id}:
        note = f"The name {name} meant the data set {previous} until now"
        found = {**found, "notes": [*cast("list[JSON]", found.get("notes", [])), note]}
    return record_of(DatasetRecord, row, name=name, report=found)


async def get_dataset(session: AsyncSession, reference: uuid.UUID | str) -> DatasetRecord:
    """The data set with this id, or the one that a name was given to last.

    Raises:
        NotFoundError: There is none.
    """
    text = str(reference)
    query = select(DatasetRow, _CALLED).where(DatasetRow.deleted.is_(None))
    # A digest of 32 digits, which Python takes for a UUID as well, is a name.
    if is_id(text):
        query = query.where(DatasetRow.id == uuid.UUID(text))
    else:
        query = query.join(DatasetNameRow, DatasetNameRow.dataset_id == DatasetRow.id)
        query = query.where(DatasetNameRow.name == check_name(text, what="data set"))
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise NotFoundError(f"There is no data set {text}")
    row, called = found
    return record_of(DatasetRecord, row, name=called if is_id(text) else text)


async def delete_dataset(session: AsyncSession, reference: uuid.UUID | str) -> DatasetRecord:
    """The data set, which from now on nobody finds; its names are free again.

    Vectors that were trained on it stay, and its row stays for the jobs that name it. Its file is
    still there: see `drop_unneeded`.

    Raises:
        NotFoundError: There is none.
        ConflictError: A job that has not ended trains on it; it was named and has other names, or
            the name was given to another meanwhile.
    """
    record = await get_dataset(session, reference)
    # Jobs are queued under a weaker lock of the same row, so none comes between.
    query = select(DatasetRow).where(DatasetRow.id == record.id).with_for_update()
    row = (await session.scalars(query)).one()
    if row.deleted is not None:
        raise NotFoundError(f"There is no data set {record.id}")
    names = select(DatasetNameRow.name).where(DatasetNameRow.dataset_id == row.id)
    called = sorted(await session.scalars(names))
    if not is_id(str(reference)) and reference not in called:
        raise ConflictError(f"The name {reference} has just been given to another data set")
    if str(reference) in called and len(called) > 1:
        # Whoever gave another name to the same content would lose it.
        others = [name for name in called if name != str(reference)]
        raise ConflictError(
            f"The data set {reference} is also called {', '.join(others)}; to delete it with all "
            f"its names, name it by its id {row.id}",
            details={"id": str(row.id), "names": others},
        )
    unfinished = JobRow.state.in_(UNFINISHED_STATES)
    needing = select(JobRow.id).where(JobRow.dataset_id == row.id, unfinished).limit(10)
    jobs = [str(job_id) for job_id in await session.scalars(needing)]
    if jobs:
        raise ConflictError(
            f"The data set {row.name} is needed by training jobs that have not ended; "
            "wait for them or cancel them first",
            details={"jobs": jobs},
        )
    row.deleted = func.clock_timestamp()
    await session.execute(delete(DatasetNameRow).where(DatasetNameRow.dataset_id == row.id))
    details = {"name": row.name, "sha256": row.sha256}
    await write_audit(session, action="dataset.delete", subject=str(row.id), details=details)
    return record


async def hold_file(session: AsyncSession, key: str) -> None:
    """Until the session's transaction ends nobody else stores or drops the data set of this file.

    Not by a lock of its row, which there may be none of.
    """
    await session.execute(select(func.pg_advisory_xact_lock(lock_number(f"file\0{key}"))))


async def find_by_sha256(session: AsyncSession, sha256: str) -> DatasetRecord | None:
    """The data set with this content, or None when it was never stored."""
    query = select(DatasetRow).where(DatasetRow.sha256 == sha256, DatasetRow.deleted.is_(None))
    row = (await session.scalars(query)).one_or_none()
    return None if row is None else record_of(DatasetRecord, row)


async def list_datasets(
    session: AsyncSession, *, limit: int = 50, cursor: str | None = None
) -> Page[DatasetRecord]:
    """Data sets, newest first.

    Raises:
        InvalidInputError: The limit or cursor is malformed.
    """

    async def read(query: Select[DatasetRow, str]) -> list[DatasetRecord]:
        found = await session.execute(query)
        return [record_of(DatasetRecord, row, name=called) for row, called in found]

    query = select(DatasetRow, _CALLED).where(DatasetRow.deleted.is_(None))
    return await read_page(read, query, of=DatasetRow.id, limit=limit, cursor=cursor)
