"""Records that a program has in memory: rows one by one, tables, and either for each split."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.fields import USED_COLUMNS
from vlibrary_client.layouts.items import ColumnMap, Record
from vlibrary_client.layouts.pictures import PICTURE_COLUMNS
from vlibrary_client.layouts.tables import table_rows
from vlibrary_client.layouts.values import feature_of, has_labels, labelled, plain


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
        return table_rows(source, columns=columns)
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
    labels = _labels(source)
    for index, item in enumerate(source):
        place = f"item {index}"
        if isinstance(item, Mapping):
            yield Record(
                place=place,
                fields={
                    name: value
                    if name in PICTURE_COLUMNS
                    else labelled(plain(value), labels.get(name))
                    for name, value in item.items()
                },
            )
        else:
            problem = f"wanted a mapping with question and answer, found {type(item).__name__}"
            yield Record(place=place, fields={}, problem=problem)


def _labels(source: object) -> dict[str, object]:
    """The features of a Hugging Face data set's columns that hold the numbers of labels."""
    features = getattr(source, "features", None)
    found = feature_of(features) if isinstance(features, Mapping) else {}
    columns = found if isinstance(found, dict) else {}
    return {name: feature for name, feature in columns.items() if has_labels(feature)}
