"""Items as rows of the one Parquet file that is sent and kept: the Hugging Face image layout."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from vlibrary_client.layouts.fields import PLACE_COLUMN
from vlibrary_client.layouts.items import Item

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
    rows: Iterable[Row], target: Path, *, schema: pa.Schema, most_rows: int, most_bytes: int
) -> None:
    """Writes the rows to a Parquet file, one batch in memory at a time.

    A batch ends with `most_rows` rows, or where its pictures reach `most_bytes`.
    """
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _batches(rows, most_rows=most_rows, most_bytes=most_bytes):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


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
