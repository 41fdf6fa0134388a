"""Packs what callers have of a data set into one Parquet file, which the server checks and keeps.

Every layout of `vlibrary_client.layouts` is understood: folders of pictures with a
`metadata.jsonl`, `.csv` or `.parquet` (nested ones by split), Parquet and Arrow files, JSON lines,
JSON arrays, CSV, conversations, the VQA challenge's pairs of files, WebDataset tars, packed
folders, and iterables of mappings::

    {"file_name": "red_circle.png", "question": "What colour is it?", "answer": "red"}
    {"file_name": "bus.jpg", "question": "What is this?", "answers": ["bus", "a bus"]}

Pictures are kept as they are encoded; nothing is decoded, and one batch is in memory at a time.
Knows nothing of HTTP.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.fields import PLACE_COLUMN, PROBLEM_COLUMN
from vlibrary_client.layouts.items import BadItem, ColumnMap, Found
from vlibrary_client.layouts.pictures import PICTURE_COLUMNS, is_path
from vlibrary_client.layouts.sources import DatasetSource, open_source
from vlibrary_client.layouts.tables import BATCH_ROWS

BATCH_ITEMS = 512
BATCH_BYTES = 32 << 20
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("id", pa.string()),
        ("image_id", pa.string()),
        ("split", pa.string()),
        (PLACE_COLUMN, pa.string()),
        (PROBLEM_COLUMN, pa.string()),
    ]
)


@contextmanager
def parquet_file(
    source: DatasetSource, *, columns: ColumnMap | None = None, skip_bad: bool = False
) -> Iterator[Path]:
    """A Parquet file of the source, gone again afterwards unless it was the source itself.

    A Parquet file is sent as it is, unless columns have other names or pictures lie beside it.

    Raises:
        InvalidDatasetError: The source is missing, empty, or has rows that cannot be used.
    """
    is_parquet = isinstance(source, str | PathLike) and Path(source).suffix.lower() == ".parquet"
    if is_parquet and not columns:
        path = Path(source)  # type: ignore[arg-type]  # told by `is_parquet`
        if not path.exists():
            raise InvalidDatasetError(f"{path.name} does not exist")
        if not _names_pictures(path):
            yield path
            return
    with tempfile.TemporaryDirectory(prefix="vlibrary-") as folder:
        target = Path(folder) / "dataset.parquet"
        write_parquet(source, target, columns=columns, skip_bad=skip_bad)
        yield target


def _names_pictures(path: Path) -> bool:
    """Whether the first rows of a Parquet file tell their pictures by paths."""
    try:
        with pq.ParquetFile(path) as file:
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
    num_items = 0
    bad: list[BadItem] = []
    with pq.ParquetWriter(target, SCHEMA, compression="zstd") as writer:
        for batch in _batches(open_source(source, columns=columns).found):
            bad += [one for one in batch if isinstance(one, BadItem)]
            num_items += sum(not isinstance(one, BadItem) for one in batch)
            writer.write_batch(pa.RecordBatch.from_pylist(list(map(_row, batch)), schema=SCHEMA))
    if bad and not skip_bad:
        shown = "; ".join(f"{one.place}: {one.reason}" for one in bad[:3])
        counted = f"{len(bad)} of {num_items + len(bad)} rows cannot be used: "
        raise InvalidDatasetError((counted if len(bad) > 1 else "") + shown)
    if num_items == 0:
        raise InvalidDatasetError("the source has no items")
    return num_items


def _batches(found: Iterable[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    num_bytes = 0
    for one in found:
        batch.append(one)
        num_bytes += 0 if isinstance(one, BadItem) else len(one.image or b"")
        if len(batch) >= BATCH_ITEMS or num_bytes >= BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _row(found: Found) -> dict[str, Any]:
    if isinstance(found, BadItem):
        return {PLACE_COLUMN: found.place, PROBLEM_COLUMN: found.reason}
    has_image = found.image is not None
    return {
        "image": {"bytes": found.image, "path": found.image_name} if has_image else None,
        "question": found.question,
        "answers": list(found.answers),
        "id": found.id,
        "image_id": found.image_id,
        "split": found.split,
        PLACE_COLUMN: found.place,
    }
