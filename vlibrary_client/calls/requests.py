"""Requests about what is stored, data sets and vectors, as values; nothing is sent here.

The methods of the sync and the async client are made of these functions, documentation included.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from vlibrary_client.calls.arguments import (
    DatasetRef,
    VectorRef,
    dataset_text,
    is_fixed,
    listed,
    present,
    require_name,
    segment,
    vector_text,
)
from vlibrary_client.layouts.items import with_question
from vlibrary_client.layouts.packing import parquet_file
from vlibrary_client.layouts.sources import DatasetSource
from vlibrary_client.terminals import sending, upload_progress
from vlibrary_client.types import Alias, Dataset, Page, Vector, VectorStatus
from vlibrary_client.wire.replies import (
    Call,
    Kept,
    Steps,
    fetched,
    json_reader,
    once,
    read_bytes,
    read_nothing,
)

OCTET_STREAM = "application/octet-stream"
PARQUET = "application/vnd.apache.parquet"
# The answer comes after the server has looked at every item, for which it may take an hour itself.
UPLOAD_TIMEOUT_SECONDS = 3900.0


def upload_dataset(
    source: DatasetSource,
    *,
    name: str,
    description: str = "",
    columns: Mapping[str, str] | None = None,
    question: str | None = None,
    skip_bad: bool = False,
    text_only: bool = False,
    progress: bool = False,
) -> Steps[Dataset]:
    """Stores a folder, a file, or an iterable of items as a data set.

    Every layout of `vlibrary_client.layouts` is understood. A folder usually has a
    `metadata.jsonl` beside its images, with lines such as
    `{"file_name": "a.png", "question": "What colour?", "answer": "red"}` (or `answers`, a
    list). Items of an iterable are mappings with `image` (a Pillow image, encoded bytes or a
    path), `question`, and `answer` or `answers`; a data frame or a table is its rows. Uploading
    the same items again finds the same data set. `report` of what comes back tells what was found.

    Args:
        source: What is to be stored.
        name: What it will be called.
        description: Text for people.
        columns: Which of the source's columns is which, such as `{"question": "problem"}`.
        question: What is asked about every picture, for sources of pictures and labels alone:
            folders that are called by their class, or `columns={"answer": "label"}`.
        skip_bad: Leave out rows that cannot be used, rather than refuse the source.
        text_only: Take rows without a picture as items of text alone.
        progress: Draw on the terminal what is packed and sent, and how long the server checks.

    Raises:
        InvalidDatasetError: The source cannot be read, or the server refuses its content.
        InvalidInputError: The name is none.
    """
    # Before all is packed and sent.
    require_name(name)
    columns = with_question(columns, question)
    with (
        upload_progress(is_shown=progress, title=name) as show,
        parquet_file(source, columns=columns, skip_bad=skip_bad) as path,
    ):
        call: Call[Dataset] = Call(
            method="POST",
            path="/datasets",
            read=json_reader(Dataset),
            query=present(
                name=name,
                description=description or None,
                skip_bad="true" if skip_bad else None,
                text_only="true" if text_only else None,
            ),
            content=path,
            on_sent=sending(path, show),
            headers={"content-type": PARQUET} | once(),
            timeout_seconds=UPLOAD_TIMEOUT_SECONDS,
        )
        return (yield from call)


def get_dataset(dataset: DatasetRef) -> Call[Dataset]:
    """One data set by id or name.

    Raises:
        NotFoundError: There is none.
    """
    return fetched(f"/datasets/{segment(dataset_text(dataset))}", Dataset)


def list_datasets(*, limit: int = 50, cursor: str | None = None) -> Call[Page[Dataset]]:
    """One page of the data sets, newest first."""
    return fetched("/datasets", Page[Dataset], present(limit=limit, cursor=cursor))


def delete_dataset(dataset: DatasetRef) -> Call[None]:
    """Deletes a data set and its file; vectors that were trained on it stay.

    Raises:
        NotFoundError: There is none.
        ConflictError: A training that has not ended needs it, or it was named and has other names.
    """
    path = get_dataset(dataset).path
    return Call(method="DELETE", path=path, read=read_nothing, is_repeatable=False)


def get_vector(ref: VectorRef) -> Call[Vector]:
    """One version by id, `name` (the latest), `name@version` or `name@alias`.

    Raises:
        NotFoundError: There is none.
    """
    return fetched(f"/vectors/{segment(vector_text(ref))}", Vector)


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file as a whole: what was there stays until all is written."""
    # A name of its own, since others may write the same file.
    draft = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        # A write that finds no room does not say where.
        error.filename = error.filename or str(path)
        raise
    finally:
        draft.unlink(missing_ok=True)


def download_vector(ref: VectorRef, *, to: str | Path | None = None) -> Steps[bytes]:
    """The vector's file, checked against its digest; also written to `to` when given.

    A lost connection is resumed where it was lost, and `to` is replaced only by the whole file.

    Raises:
        NotFoundError: There is no such vector.
        CorruptDataError: The bytes are not those that were stored.
    """
    path = f"/vectors/{segment(vector_text(ref))}/file"
    content: bytes = yield from Call(path=path, read=read_bytes, kept=Kept())
    if to is not None:
        replace_file(Path(to), content)
    return content


def upload_vector(
    content: bytes | str | Path, *, name: str, description: str = "", tags: Sequence[str] = ()
) -> Call[Vector]:
    """Imports an M2IV file, given as its bytes or its path, as the next version of `name`.

    Raises:
        InvalidVectorFileError: The bytes are no M2IV file.
        IncompatibleBackboneError: No backbone that the server knows made it.
    """
    return Call(
        method="POST",
        path="/vectors",
        read=json_reader(Vector),
        query=present(
            name=name, description=description or None, tags=listed(tags, "tags") or None
        ),
        content=Path(content) if isinstance(content, str) else content,
        headers={"content-type": OCTET_STREAM} | once(),
    )


def update_vector(
    ref: VectorRef,
    *,
    description: str | None = None,
    tags: Sequence[str] | None = None,
    status: VectorStatus | None = None,
) -> Call[Vector]:
    """Changes what is said about a version; what is not given stays.

    Raises:
        NotFoundError: There is no such vector.
    """
    return Call(
        method="PATCH",
        path=f"/vectors/{segment(vector_text(ref))}",
        read=json_reader(Vector),
        # By its name a repeat could meet a version that was stored meanwhile.
        is_repeatable=is_fixed(ref),
        body=present(
            description=description,
            tags=None if tags is None else listed(tags, "tags"),
            status=status,
        ),
    )


def delete_vector(ref: VectorRef) -> Call[None]:
    """Takes a version out of the library.

    Raises:
        NotFoundError: There is no such vector.
        ConflictError: An alias other than `latest` points at it.
    """
    path = f"/vectors/{segment(vector_text(ref))}"
    return Call(method="DELETE", path=path, read=read_nothing, is_repeatable=False)


def set_alias(
    name: str, alias: str, version: int, *, expected_version: int | None = None
) -> Call[Alias]:
    """Points `name@alias` at a version.

    Args:
        name: The vector's name.
        alias: The movable name, such as `prod`.
        version: Where it shall point.
        expected_version: Where it must point now for the change to happen; 0 means that it
            must not exist yet.

    Raises:
        ConflictError: It points elsewhere.
        NotFoundError: There is no such version.
    """
    return Call(
        method="PUT",
        path=f"/vectors/{segment(name)}/aliases/{segment(alias)}",
        read=json_reader(Alias),
        # With an expected version a repeat would find its own effect and report a conflict.
        is_repeatable=expected_version is None,
        body={"version": version, "expected_version": expected_version},
    )
