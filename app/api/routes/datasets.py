"""Routes of data sets: Parquet files addressed by their content."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.dependencies import ServicesOf
from app.api.http.admission import caller_of
from app.api.http.cancellation import run_until_disconnect
from app.api.http.problems import problems
from app.api.http.uploads import (
    LONGEST_SECONDS,
    OCTET_STREAM,
    PARQUET,
    file_body,
    received_file,
    require_media_type,
)
from app.api.schemas.bodies import PageBody
from app.api.schemas.datasets import DatasetBody
from app.api.schemas.fields import Cursor, Description, Limit, Name, Reference
from app.library.datasets import (
    DatasetSummary,
    create_dataset,
    delete_dataset,
    drop_file_of_deleted,
    find_by_sha256,
    get_dataset,
    list_datasets,
    validate_parquet,
)
from app.library.storage import dataset_key

router = APIRouter(tags=["datasets"])


@router.post(
    "/datasets",
    status_code=201,
    responses=problems(413, 415, 429, 504)
    | {200: {"description": "The same bytes were stored before", "model": DatasetBody}},
    openapi_extra=file_body(PARQUET, OCTET_STREAM),
)
async def upload(
    request: Request,
    response: Response,
    services: ServicesOf,
    *,
    name: Name,
    description: Annotated[Description, Query()] = "",
) -> DatasetBody:
    """Stores a Parquet file with the columns image{bytes, path}, question, answer or answers."""
    require_media_type(request, PARQUET, OCTET_STREAM)
    folder = services.settings.data_dir / "uploads"
    with services.uploads.place(caller=caller_of(request)):
        async with received_file(request, folder=folder) as file:
            async with services.sessions() as session:
                known = await find_by_sha256(session, file.sha256)
            summary = (
                DatasetSummary(known.num_items, known.num_images)
                if known is not None
                else await run_until_disconnect(
                    validate_parquet(file.path), request=request, seconds=LONGEST_SECONDS
                )
            )
            key = dataset_key(file.sha256)
            # Before the row, so that no row ever names a missing file.
            await services.store.put_file(key, file.path)
            async with services.sessions.begin() as session:
                record = await create_dataset(
                    session,
                    name=name,
                    sha256=file.sha256,
                    size_bytes=file.size_bytes,
                    num_items=summary.num_items,
                    num_images=summary.num_images,
                    storage_key=key,
                    description=description,
                )
            if not await services.store.exists(record.storage_key):
                # The same content was deleted meanwhile; now that its row is back, nobody does.
                await services.store.put_file(record.storage_key, file.path)
    if known is not None:
        response.status_code = 200
    response.headers["location"] = f"/datasets/{record.id}"
    return DatasetBody.model_validate(record)


@router.get("/datasets", responses=problems())
async def list_page(
    services: ServicesOf, *, limit: Limit = 50, cursor: Cursor | None = None
) -> PageBody[DatasetBody]:
    """Lists data sets, newest first."""
    async with services.sessions() as session:
        page = await list_datasets(session, limit=limit, cursor=cursor)
    return PageBody[DatasetBody].model_validate(page)


@router.get("/datasets/{ref}", responses=problems(404))
async def get_one(
    ref: Annotated[Reference, Path(description="An id or a name.")], services: ServicesOf
) -> DatasetBody:
    """Describes one data set."""
    async with services.sessions() as session:
        return DatasetBody.model_validate(await get_dataset(session, ref))


@router.delete("/datasets/{ref}", status_code=204, responses=problems(404, 409))
async def delete(
    ref: Annotated[Reference, Path(description="An id or a name.")], services: ServicesOf
) -> None:
    """Deletes a data set and its file; 409 while a job that has not ended needs it."""
    async with services.sessions.begin() as session:
        record = await delete_dataset(session, ref)
    # If this fails, `vlibrary gc` does it.
    async with services.sessions.begin() as session:
        await drop_file_of_deleted(session, record.id, services.store.delete)
