"""Records of Parquet files and of Arrow files and streams, a few rows in memory at a time."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.fields import wanted_columns
from vlibrary_client.layouts.items import ColumnMap, Record

MAX_ROWS = 1_000_000
MAX_COLUMNS = 512
MAX_FOOTER_BYTES = 32 << 20
BATCH_ROWS = 16
PARQUET_MAGIC = b"PAR1"
_TAIL_BYTES = 8
_DAMAGED = (pa.ArrowException, OSError, ValueError)


def parquet_rows(
    path: Path, *, name: str | None, split: str | None, columns: ColumnMap
) -> Iterator[Record]:
    """The rows of a Parquet file.

    Where there are several files, a row's number stands behind its file's name; the split is that
    of rows that name none.

    Raises:
        InvalidDatasetError: It is damaged, too large, or has no columns of a data set.
    """
    where = f"{name}: " if name else ""
    try:
        _check_footer(path)
        # Page by page: a column of a row group may be larger than the memory.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            wanted = _wanted(file.schema_arrow, columns)
            labels = _class_labels(file.schema_arrow)
            batches = file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False)
            yield from _rows(batches, name=name, split=split, labels=labels)
    except InvalidDatasetError as error:
        raise InvalidDatasetError(f"{where}{error.message}") from None
    except MemoryError:
        raise
    except _DAMAGED as error:
        raise InvalidDatasetError(f"{where}the file is damaged or no Parquet file") from error


def _check_footer(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(len(PARQUET_MAGIC))
        stream.seek(max(0, size - _TAIL_BYTES))
        tail = stream.read(_TAIL_BYTES)
    if head != PARQUET_MAGIC or not tail.endswith(PARQUET_MAGIC):
        raise InvalidDatasetError("the file is no Parquet file, or cut short")
    if int.from_bytes(tail[:4], "little") > min(MAX_FOOTER_BYTES, size):
        raise InvalidDatasetError("the file's footer is too large")


def arrow_rows(
    path: Path, *, name: str | None, split: str | None, columns: ColumnMap
) -> Iterator[Record]:
    """The rows of an Arrow IPC file or stream; see `parquet_rows`."""
    where = f"{name}: " if name else ""
    try:
        with pa.memory_map(str(path)) as source:
            reader = _arrow_reader(source)
            wanted = _wanted(reader.schema, columns)
            labels = _class_labels(reader.schema)
            yield from _rows(_batches(reader, wanted), name=name, split=split, labels=labels)
    except InvalidDatasetError as error:
        raise InvalidDatasetError(f"{where}{error.message}") from None
    except MemoryError:
        raise
    except _DAMAGED as error:
        raise InvalidDatasetError(f"{where}the file is damaged or no Arrow file") from error


def _arrow_reader(source: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    with suppress(pa.ArrowInvalid):
        return pa.ipc.open_file(source)
    source.seek(0)
    return pa.ipc.open_stream(source)


def _batches(reader: Any, wanted: list[str]) -> Iterator[Any]:  # noqa: ANN401
    batches = (
        (reader.get_batch(index) for index in range(reader.num_record_batches))
        if hasattr(reader, "get_batch")
        else iter(reader)
    )
    for batch in batches:
        chosen = batch.select(wanted)
        chosen.validate(full=True)
        for start in range(0, len(chosen), BATCH_ROWS):
            yield chosen.slice(start, BATCH_ROWS)


def _wanted(schema: Any, columns: ColumnMap) -> list[str]:  # noqa: ANN401
    names = list(schema.names)
    if len(names) > MAX_COLUMNS:
        raise InvalidDatasetError(f"it has more than {MAX_COLUMNS} columns")
    return wanted_columns(names, columns)


def _rows(
    batches: Iterator[Any],
    *,
    name: str | None,
    split: str | None,
    labels: Mapping[str, list[str]],
) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            if number >= MAX_ROWS:
                raise InvalidDatasetError(f"it has more than {MAX_ROWS} rows")
            for column, names in labels.items():
                row[column] = labelled(row.get(column), names)
            place = f"row {number}" if name is None else f"{name} row {number}"
            yield Record(place=place, fields=row, split=split)
            number += 1


def _class_labels(schema: Any) -> dict[str, list[str]]:  # noqa: ANN401
    """The names behind the numbers of Hugging Face's ClassLabel columns."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(metadata)["info"]["features"] if metadata else {}
        found = {}
        for name, feature in features.items():
            if name not in schema.names:
                continue
            inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
                found[str(name)] = [str(label) for label in inner["names"]]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}
    return found


def labelled(value: object, names: list[str]) -> object:
    """What the numbers of a ClassLabel column stand for; nothing for those without a name."""
    if isinstance(value, list):
        return [labelled(one, names) for one in value]
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    # Hugging Face writes -1 where a label is not known.
    return None
