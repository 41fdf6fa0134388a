"""Records of tables: Parquet and Arrow files, a few rows at a time, and what a program has at hand.

That is rows one by one, tables, and either for each split.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.fields import USED_COLUMNS, unread_pictures, wanted_columns
from vlibrary_client.layouts.items import ColumnMap, Record
from vlibrary_client.layouts.pictures import PICTURE_COLUMNS
from vlibrary_client.layouts.values import (
    as_written,
    feature_of,
    has_labels,
    holds_objects,
    labelled,
    plain,
)

MAX_ROWS = 1_000_000
MAX_COLUMNS = 512
MAX_FOOTER_BYTES = 32 << 20
BATCH_ROWS = 16
INFO_NAME = "dataset_info.json"
PARQUET_MAGIC = b"PAR1"
NOTES_KEY = b"vlibrary.notes"
_TAIL_BYTES = 8
_DAMAGED = (pa.ArrowException, OSError, ValueError)


def parquet_rows(path: Path, *, name: str | None, columns: ColumnMap) -> Iterator[Record]:
    """The rows of a Parquet file.

    Where there are several files, a row's number stands behind its file's name.

    Raises:
        InvalidDatasetError: It is damaged, too large, or has no columns of a data set.
    """
    with _refusals(name, kind="Parquet"):
        _check_footer(path)
        with opened_parquet(path) as file:
            schema = file.schema_arrow
            wanted = _wanted(schema, columns)
            batches = file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False)
            labels = _labels(schema, path)
            yield from _rows(batches, name=name, schema=schema, labels=labels)


def opened_parquet(path: Path) -> pq.ParquetFile:
    """The file, to be read page by page: a column of a row group may be larger than the memory."""
    return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


@contextmanager
def _refusals(name: str | None, *, kind: str) -> Iterator[None]:
    """What is wrong with a file, told with its name where there are several."""
    where = f"{name}: " if name else ""
    try:
        yield
    except InvalidDatasetError as error:
        raise InvalidDatasetError(f"{where}{error.message}") from None
    except MemoryError:
        raise
    except _DAMAGED as error:
        raise InvalidDatasetError(f"{where}the file is damaged or no {kind} file") from error


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


def packed_notes(path: Path) -> list[str]:
    """What was noticed of a source before it was packed as this Parquet file."""
    with suppress(InvalidDatasetError, TypeError, KeyError, *_DAMAGED):
        _check_footer(path)
        with opened_parquet(path) as file:
            found = json.loads((file.metadata.metadata or {}).get(NOTES_KEY, b"[]"))
        return [str(note)[:300] for note in found[:10]]
    return []


def arrow_rows(path: Path, *, name: str | None, columns: ColumnMap) -> Iterator[Record]:
    """The rows of an Arrow IPC file or stream; see `parquet_rows`."""
    with _refusals(name, kind="Arrow"), pa.memory_map(str(path)) as source:
        reader = _arrow_reader(source)
        schema, labels = reader.schema, _labels(reader.schema, path)
        batches = _batches(reader, _wanted(schema, columns))
        yield from _rows(batches, name=name, schema=schema, labels=labels)


def _table_rows(table: Any, *, columns: ColumnMap) -> Iterator[Record]:  # noqa: ANN401
    """The rows of a table in memory that Arrow can read; see `parquet_rows`."""
    reader = pa.RecordBatchReader.from_stream(table)
    batches = _batches(reader, _wanted(reader.schema, columns))
    labels = _labels(reader.schema)
    yield from _rows(batches, name=None, schema=reader.schema, labels=labels)


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
    wanted = wanted_columns(names, columns)
    unread = [one.name for one in schema if one.name not in wanted and _is_file(one.type)]
    if unread and "image" not in columns:
        raise InvalidDatasetError(unread_pictures(unread))
    return wanted


def _is_file(kind: Any) -> bool:  # noqa: ANN401
    """As Hugging Face's columns of pictures hold them, one or several."""
    if hasattr(kind, "value_type"):
        return _is_file(kind.value_type)
    return pa.types.is_struct(kind) and {one.name for one in kind} == {"bytes", "path"}


def _rows(
    batches: Iterator[Any],
    *,
    name: str | None,
    schema: Any,  # noqa: ANN401 - pyarrow has no types
    labels: Mapping[str, object],
) -> Iterator[Record]:
    float_bytes = _float_bytes(schema)
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            if number >= MAX_ROWS:
                raise InvalidDatasetError(f"it has more than {MAX_ROWS} rows")
            for column in row.keys() & labels.keys():
                row[column] = labelled(row[column], labels[column])
            for column in row.keys() & float_bytes.keys():
                row[column] = as_written(row[column], float_bytes[column])
            place = f"row {number}" if name is None else f"{name} row {number}"
            yield Record(place=place, fields=row)
            number += 1


def _labels(schema: Any, path: Path | None = None) -> dict[str, object]:  # noqa: ANN401
    """What Hugging Face writes of the columns that hold the numbers of labels.

    It stands in the table, or in a `dataset_info.json` beside its file.
    """
    metadata = (schema.metadata or {}).get(b"huggingface")
    beside = None if path is None else path.with_name(INFO_NAME)
    features: Mapping[str, object] = {}
    try:
        if metadata:
            features = json.loads(metadata)["info"]["features"]
        elif beside is not None and beside.exists():
            features = json.loads(beside.read_text("utf-8"))["features"]
        return {
            name: features[name]
            for name in schema.names
            if name in features and has_labels(features[name])
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _float_bytes(schema: Any) -> dict[str, int]:  # noqa: ANN401
    """The columns with numbers of fewer bits than Python's, and of how many bytes they are."""
    found = {}
    for name, kind in zip(schema.names, schema.types, strict=True):
        kinds = [kind]
        for one in kinds:
            kinds += [one.field(place).type for place in range(one.num_fields)]
            if pa.types.is_float16(one) or pa.types.is_float32(one):
                found[str(name)] = one.bit_width // 8
    return found


@runtime_checkable
class Table(Protocol):
    """A table in memory, which Arrow, polars and pandas let others read by one protocol."""

    @property
    def __arrow_c_stream__(self) -> Callable[..., object]:
        """What hands over the table's rows."""


Rows: TypeAlias = Iterable[Mapping[str, Any]] | Table


def in_memory_records(source: Rows | Mapping[str, Rows], *, columns: ColumnMap) -> Iterator[Record]:
    """The records of rows or of a table, or of one of these a split.

    Raises:
        InvalidDatasetError: It is none of these.
    """
    # Their columns may hold what Arrow has no type for, such as pictures of Pillow.
    as_rows = getattr(source, "to_dict", None) if hasattr(source, "iterrows") else None
    if as_rows is not None:
        return _records(as_rows("records"))
    if isinstance(source, Mapping):
        return _of_splits(source, columns)
    if isinstance(source, Table):
        return _table_rows(source, columns=columns)
    if not isinstance(source, Iterable):
        found = type(source).__name__
        raise InvalidDatasetError(f"wanted a path or an iterable of mappings, found {found}")
    return _records(source)


def _of_splits(source: Mapping[str, Any], columns: ColumnMap) -> Iterator[Record]:
    """As `datasets.load_dataset` returns them where no split is asked for."""
    for name, rows in source.items():
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable | Table):
            raise InvalidDatasetError(
                "wanted an iterable of rows, or one of them a split, found a mapping whose "
                f"{str(name)[:40]} has no rows"
            )
    if named := USED_COLUMNS & source.keys():
        raise InvalidDatasetError(
            "wanted an iterable of rows, or one of them a split, found a mapping of columns: "
            f"{', '.join(sorted(named))}"
        )
    for name, rows in source.items():
        for record in in_memory_records(cast("Rows", rows), columns=columns):
            yield replace(record, place=f"{name} {record.place}", split=str(name))


def _records(source: Iterable[Any]) -> Iterator[Record]:
    labels = _labels_of_rows(source)
    for index, item in enumerate(source):
        place = f"item {index}"
        if isinstance(item, Mapping):
            yield Record(
                place=place,
                fields={
                    name: value
                    if name in PICTURE_COLUMNS and not holds_objects(value)
                    else labelled(plain(value), labels.get(name))
                    for name, value in item.items()
                },
            )
        else:
            problem = f"wanted a mapping with question and answer, found {type(item).__name__}"
            yield Record(place=place, fields={}, problem=problem)


def _labels_of_rows(source: object) -> dict[str, object]:
    """The features of a Hugging Face data set's columns that hold the numbers of labels."""
    features = getattr(source, "features", None)
    found = feature_of(features) if isinstance(features, Mapping) else {}
    columns = found if isinstance(found, dict) else {}
    return {name: feature for name, feature in columns.items() if has_labels(feature)}
