"""Routes of data sets: files of items, addressed by their content."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.creation import CreationOf
from app.api.dependencies import Services, ServicesOf, SessionOf
from app.api.http.access import quotas_of
from app.api.http.problems import problems
from app.api.http.uploads import (
    LONGEST_SECONDS,
    OCTET_STREAM,
    PARQUET,
    file_body,
    received_file,
    require_media_type,
    upload_place,
)
from app.api.schemas.bodies import PageBody
from app.api.schemas.datasets import DatasetBody
from app.api.schemas.fields import ColumnPairs, Cursor, Description, Limit, Name, Prompt, Reference
from app.core.cancellation import run_until_disconnect
from app.core.errors import InvalidInputError, StorageUnavailableError, TooLargeError
from app.core.folders import scratch_dir
from app.core.identifiers import digest_of
from app.core.pictures import PictureLimits
from app.library.access.quotas import largest_content, require_within
from app.library.datasets import (
    convert_upload,
    create_dataset,
    delete_dataset,
    find_by_sha256,
    get_dataset,
    list_datasets,
)
from app.library.garbage import drop_unneeded
from app.library.storage import dataset_key

router = APIRouter(tags=["datasets"])

DatasetRef = Annotated[Reference, PathParameter(description="An id or a name.")]
# A picture is stored with every row that asks about it, however it was sent.
MOST_UNFOLDED = 16
MEDIA_TYPES = (
    PARQUET,
    OCTET_STREAM,
    "application/vnd.apache.arrow.file",
    "application/vnd.apache.arrow.stream",
    "application/jsonl",
    "application/x-ndjson",
    "application/json",
    "application/x-tar",
    "application/gzip",
    "application/zip",
    "text/csv",
)


@router.post(
    "/datasets",
    status_code=201,
    responses=problems(408, 409, 413, 415, 504, 507)
    | {200: {"description": "The same items were stored before", "model": DatasetBody}},
    openapi_extra=file_body(*MEDIA_TYPES),
)
async def upload(
    request: Request,
    response: Response,
    creation: CreationOf,
    *,
    services: ServicesOf,
    session: SessionOf,
    name: Name,
    description: Annotated[Description, Query()] = "",
    columns: Annotated[
        ColumnPairs,
        Query(
            alias="map",
            description="Which column is which, as `question=COLUMN`, where names differ.",
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
    question: Annotated[
        Prompt | None,
        Query(description="What is asked about every picture, where there are labels alone."),
    ] = None,
    skip_bad: Annotated[
        bool, Query(description="Leave out rows that cannot be used, and tell how many.")
    ] = False,
    text_only: Annotated[
        bool, Query(description="Take rows without a picture as items of text alone.")
    ] = False,
) -> DatasetBody:
    """Stores a data set: Parquet, Arrow, JSON lines, CSV, a WebDataset tar or a packed folder.

    Every row is read and every picture decoded; the reply tells what was found.
    """
    require_media_type(request, *MEDIA_TYPES)
    mapped = dict(pair.split("=", 1) for pair in columns)
    if question is not None and "question" in mapped:
        raise InvalidInputError("Wanted a column of questions or one question for all, found both")
    folder = scratch_dir(services.settings.data_dir)
    quotas = quotas_of(request)
    async with services.sessions() as before:
        largest = await largest_content(before, quotas)
    most_bytes = int(min(largest, MOST_UNFOLDED * services.settings.max_upload_bytes))
    async with (
        upload_place(request, services.uploads),
        received_file(request, folder=folder) as (file, file_sha256),
        anyio.TemporaryDirectory(dir=str(folder), ignore_cleanup_errors=True) as scratch,
    ):
        target = Path(scratch) / "dataset.parquet"
        try:
            report = await run_until_disconnect(
                convert_upload(
                    file,
                    target,
                    limits=PictureLimits.of(services.settings),
                    skip_bad=skip_bad,
                    text_only=text_only,
                    columns=mapped,
                    question=question,
                    most_bytes=most_bytes,
                ),
                receive=request.receive,
                seconds=LONGEST_SECONDS,
            )
        except TooLargeError:
            async with services.sessions() as before:
                await require_within(before, quotas, more_bytes=most_bytes + 1)
            raise
        sha256, size_bytes = await asyncio.to_thread(digest_of, target), target.stat().st_size
        async with services.sessions() as before:
            if await find_by_sha256(before, sha256) is None:
                await require_within(before, quotas, more_bytes=size_bytes)
        key = dataset_key(sha256, workspace=services.workspace)
        async with _stored_file(target, key, services=services, session=session):
            await creation.begin(file_sha256)
            known = await find_by_sha256(session, sha256)
            record = await create_dataset(
                session,
                name=name,
                sha256=sha256,
                size_bytes=size_bytes,
                num_items=report.num_items,
                num_images=report.num_images,
                storage_key=key,
                description=description,
                report=report.as_json(),
            )
            if known is not None:
                response.status_code = 200
            body = DatasetBody.model_validate(record)
            answer = await creation.answer(body, at=f"/datasets/{record.id}")
            await session.commit()
    return answer


@asynccontextmanager
async def _stored_file(
    source: Path, key: str, *, services: Services, session: AsyncSession
) -> AsyncIterator[None]:
    """Stores a file before the block commits its row, so that no row ever names a missing one.

    Where no row comes to be, the file goes again.
    """
    try:
        await services.store.put_file(key, source)
        yield
    except BaseException:
        await session.rollback()
        # If this fails, `vlibrary gc` does it.
        with suppress(SQLAlchemyError, StorageUnavailableError):
            await drop_unneeded(services.sessions, services.store, key)
        raise
    if not await services.store.exists(key):
        # It was dropped in between; now that there is a row, nobody does.
        await services.store.put_file(key, source)


@router.get("/datasets", responses=problems())
async def list_page(
    session: SessionOf, *, limit: Limit = 50, cursor: Cursor | None = None
) -> PageBody[DatasetBody]:
    """Lists data sets, newest first."""
    page = await list_datasets(session, limit=limit, cursor=cursor)
    return PageBody[DatasetBody].model_validate(page)


@router.get("/datasets/{ref}", responses=problems(404))
async def get_one(ref: DatasetRef, session: SessionOf) -> DatasetBody:
    """Describes one data set."""
    return DatasetBody.model_validate(await get_dataset(session, ref))


@router.delete("/datasets/{ref}", status_code=204, responses=problems(404, 409))
async def delete(
    ref: DatasetRef,
    *,
    services: ServicesOf,
    session: SessionOf,
) -> None:
    """Deletes a data set and its file; 409 while a job needs it, or by one of several names."""
    record = await delete_dataset(session, ref)
    await session.commit()
    # It is deleted all the same; if this fails, `vlibrary gc` does it.
    with suppress(SQLAlchemyError, StorageUnavailableError):
        await drop_unneeded(services.sessions, services.store, record.storage_key)
