"""Packs what callers have of a data set into one Parquet file, which the server checks and keeps.

The file is in the Hugging Face image layout, a row an item; the server writes its own by it too.

Every layout of `vlibrary_client.layouts` is understood: folders of pictures with a
`metadata.jsonl`, `.csv` or `.parquet` (nested ones by split), Parquet and Arrow files, JSON lines,
JSON arrays, CSV, conversations, the VQA challenge's pairs of files, WebDataset tars, packed
folders, and iterables of mappings::

    {"file_name": "red_circle.png", "question": "What colour is it?", "answer": "red"}
    {"file_name": "bus.jpg", "question": "What is this?", "answers": ["bus", "a bus"]}

Pictures are kept as they are encoded; nothing is decoded, and one batch is in memory at a time.
Knows nothing of HTTP.
"""

import errno
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.fields import PLACE_COLUMN, PROBLEM_COLUMN
from vlibrary_client.layouts.items import BadItem, ColumnMap, Item
from vlibrary_client.layouts.pictures import PICTURE_COLUMNS, is_path
from vlibrary_client.layouts.sources import DatasetSource, open_source
from vlibrary_client.layouts.tables import BATCH_ROWS, NOTES_KEY, opened_parquet

Row: TypeAlias = dict[str, Any]

FIELDS = (
    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ("question", pa.string()),
    ("answers", pa.list_(pa.string())),
    ("id", pa.string()),
    ("image_id", pa.string()),
    ("split", pa.string()),
    (PLACE_COLUMN, pa.string()),
)
BATCH_ITEMS = 512
BATCH_BYTES = 32 << 20
SCHEMA = pa.schema([*FIELDS, (PROBLEM_COLUMN, pa.string())])


@contextmanager
def parquet_file(
    source: DatasetSource, *, columns: ColumnMap | None = None, skip_bad: bool = False
) -> Iterator[Path]:
    """A Parquet file of the source, gone again afterwards unless it was the source itself.

    A Parquet file is sent as it is, unless columns have other names or pictures lie beside it.

    Raises:
        InvalidDatasetError: The source is missing, empty, or has rows that cannot be used.
        OSError: There is no room for it among temporary files.
    """
    path = Path(source) if isinstance(source, str | PathLike) else Path()
    is_sent = path.suffix.lower() == ".parquet" and path.is_file() and not columns
    if is_sent and not _names_pictures(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vlibrary-") as folder:
        target = Path(folder) / "dataset.parquet"
        try:
            write_parquet(source, target, columns=columns, skip_bad=skip_bad)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            message = "no room left to pack the data set; TMPDIR names another folder"
            raise OSError(error.errno, message, str(target.parent.parent)) from error
        yield target


def _names_pictures(path: Path) -> bool:
    """Whether the first rows of a Parquet file tell their pictures by paths."""
    try:
        with opened_parquet(path) as file:
            columns = [name for name in file.schema_arrow.names if name in PICTURE_COLUMNS]
            first = next(file.iter_batches(batch_size=BATCH_ROWS, columns=columns), None)
    except (pa.ArrowException, OSError, ValueError):
        return False  # The server says what is wrong with it.
    values = [] if first is None else [value for row in first.to_pylist() for value in row.values()]
    return any(map(is_path, values))


def write_parquet(
    source: DatasetSource,
    target: Path,
    *,
    columns: ColumnMap | None = None,
    skip_bad: bool = False,
) -> int:
    """Writes the source's items to `target` and returns how many there were.

    With `skip_bad`, rows that cannot be used are written with the reason, for the server to leave
    them out and tell, rather than the source be refused.

    Raises:
        InvalidDatasetError: The source is missing, empty, or has rows that cannot be used; the
            first are named, and how many there are.
    """
    opened = open_source(source, columns=columns)
    num_items = 0
    bad: list[BadItem] = []

    def rows() -> Iterator[Row]:
        nonlocal num_items
        for one in opened.found:
            if isinstance(one, BadItem):
                bad.append(one)
                yield {PLACE_COLUMN: one.place, PROBLEM_COLUMN: one.reason}
            else:
                num_items += 1
                yield row_of(one)

    write_rows(
        rows(),
        target,
        schema=SCHEMA,
        most_rows=BATCH_ITEMS,
        most_bytes=BATCH_BYTES,
        notes=opened.notes,
    )
    if bad and not skip_bad:
        shown = "; ".join(f"{one.place}: {one.reason}" for one in bad[:3])
        counted = f"{len(bad)} of {num_items + len(bad)} rows cannot be used: "
        raise InvalidDatasetError((counted if len(bad) > 1 else "") + shown)
    if num_items == 0:
        raise InvalidDatasetError("the source has no items")
    return num_items


def row_of(item: Item) -> Row:
    """The item's row, its picture as it is encoded."""
    return {
        "image": None if item.image is None else {"bytes": item.image, "path": item.image_name},
        "question": item.question,
        "answers": list(item.answers),
        "id": item.id,
        "image_id": item.image_id,
        "split": item.split,
        PLACE_COLUMN: item.place,
    }


def write_rows(
    rows: Iterable[Row],
    target: Path,
    *,
    schema: pa.Schema,
    most_rows: int,
    most_bytes: int,
    notes: Sequence[str] = (),
) -> None:
    """Writes the rows to a Parquet file, one batch in memory at a time, and then the notes.

    A batch ends with `most_rows` rows, or where its pictures reach `most_bytes`.
    """
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _batches(rows, most_rows=most_rows, most_bytes=most_bytes):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
        if notes:
            writer.add_key_value_metadata({NOTES_KEY: json.dumps([*notes])})


def _batches(rows: Iterable[Row], *, most_rows: int, most_bytes: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    num_bytes = 0
    for row in rows:
        batch.append(row)
        picture = row.get("image")
        num_bytes += 0 if picture is None else len(picture["bytes"])
        if len(batch) >= most_rows or num_bytes >= most_bytes:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch
