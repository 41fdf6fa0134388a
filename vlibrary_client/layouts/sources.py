"""Recognises what a source is, and opens it."""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.archives import (
    GZIP_MAGIC,
    HEAD_BYTES,
    METADATA_NAMES,
    TAR_PLACE,
    holds_folder,
    is_packed_tar,
    samples,
    unpacked,
)
from vlibrary_client.layouts.fields import read_items, some_of
from vlibrary_client.layouts.folders import (
    class_records,
    pair_records,
    question_pairs,
    split_of,
)
from vlibrary_client.layouts.items import COLUMNS, ColumnMap, Found, Record, Source, mapped
from vlibrary_client.layouts.pictures import (
    PICTURE_KINDS,
    ListedPictures,
    Pictures,
    files_below,
)
from vlibrary_client.layouts.tables import (
    INFO_NAME,
    Rows,
    arrow_rows,
    in_memory_records,
    packed_notes,
    parquet_rows,
)
from vlibrary_client.layouts.texts import WRAPPED_ARRAY, csv_rows, json_array, json_lines

DatasetSource: TypeAlias = str | PathLike[str] | Rows | Mapping[str, Rows]

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LFS_POINTER = b"version https://git-lfs"
# In the order in which a folder is searched; a folder is one kind only.
_KINDS = {
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".tar": "WebDataset",
    ".jsonl": "JSON lines",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "CSV",
}
# Beside the folders of a set's splits, each with the name of its own.
_SPLITS_NAME = "dataset_dict.json"
_ALIASES = {".ndjson": ".jsonl", ".feather": ".arrow", ".ipc": ".arrow", ".tgz": ".tar"}


def open_source(source: DatasetSource, *, columns: ColumnMap | None = None) -> Source:
    """The items of a folder, a file, an iterable of mappings or a table; also one of these a split.

    Raises:
        InvalidDatasetError: It is missing, or no layout that is known. Reading the items may raise
            it as well, when a file turns out to be damaged.
    """
    columns = columns or {}
    if not isinstance(source, str | PathLike):
        records = in_memory_records(source, columns=columns)
        pictures = Pictures(Path.cwd(), root=Path("/"))
        return Source(layout="items", found=_items(records, columns=columns, pictures=pictures))
    if source == "":
        # Of a shell's variable that is not set; it would be the folder that one is in.
        raise InvalidDatasetError("wanted a folder or a file, found an empty name")
    path = Path(source)
    if not path.exists():
        raise InvalidDatasetError(f"{path} does not exist")
    if path.is_dir():
        return _open_folder(path, columns)
    return _open_file(path, columns, pictures=Pictures(path.parent))


def open_upload(path: Path, *, columns: ColumnMap | None = None) -> Source:
    """As `open_source` for one file from elsewhere: told by its content, and no path is followed.

    Raises:
        InvalidDatasetError: It is no layout that is known.
    """
    return _open_file(path, columns or {}, pictures=Pictures(), is_named=False)


def _items(
    records: Iterable[Record], *, columns: ColumnMap, pictures: Pictures, split: str | None = None
) -> Iterator[Found]:
    """The items of all records; the split is that of records of which no other is told.

    Raises:
        InvalidDatasetError: The map names what it cannot, or a column that no record has.
    """
    if unknown := sorted(set(columns) - set(COLUMNS)):
        wanted = ", ".join(COLUMNS)
        raise InvalidDatasetError(f"cannot map {', '.join(unknown)}: wanted one of {wanted}")
    missing, names = mapped(columns), list[str]()
    for record in records:
        missing -= record.fields.keys()
        names = names or [*record.fields]
        yield from read_items(record, columns=columns, pictures=pictures, split=split)
    if names and missing:
        raise InvalidDatasetError(
            f"there is no column {', '.join(sorted(missing))}; found the columns {some_of(names)}"
        )


def _open_file(
    path: Path, columns: ColumnMap, *, pictures: Pictures, is_named: bool = True
) -> Source:
    suffix = path.suffix.lower() if is_named else ""
    kind = _kind(path, suffix)
    if kind == ".tar" and holds_folder(path):
        notes: list[str] = []
        return Source(
            layout="packed folder", found=_unpacked_items(path, columns, notes), notes=notes
        )
    name: str | None = path.name if is_named else "file"
    if kind in {".parquet", ".arrow"}:
        # One table numbers its rows; files are named where there are several.
        name = None
    records = _reader(kind, columns)(path, name=name)
    found = _items(records, columns=columns, pictures=pictures)
    notes = packed_notes(path) if kind == ".parquet" else []
    return Source(layout=_KINDS[kind], found=found, notes=notes)


def _unpacked_items(path: Path, columns: ColumnMap, notes: list[str]) -> Iterator[Found]:
    with unpacked(path) as folder:
        source = _open_folder(folder, columns, called="archive")
        notes += source.notes
        yield from source.found


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise InvalidDatasetError(f"cannot read the file: {error.strerror}") from error
    if head.startswith(_LFS_POINTER):
        raise InvalidDatasetError("a Git LFS pointer in place of the file: git lfs pull gets it")
    return head


def _refuse_utf16(head: bytes, suffix: str) -> None:
    # What reads JSON says so itself.
    if suffix not in {".json", ".jsonl"} and head.startswith(_UTF_16):
        raise InvalidDatasetError("text in UTF-16, as spreadsheets write it: save it in UTF-8")


def _kind(path: Path, suffix: str) -> str:
    """The ending that a file should have, by its content where that tells."""
    suffix = _ALIASES.get(suffix, suffix)
    head = _head(path)
    if head.startswith(b"PAR1") or suffix == ".parquet":
        return ".parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or suffix == ".arrow":
        return ".arrow"
    if head[TAR_PLACE] == b"ustar" or head.startswith((GZIP_MAGIC, b"PK\x03\x04")):
        if head.startswith(GZIP_MAGIC) and not is_packed_tar(path):
            raise InvalidDatasetError("a gzip file that holds no tar: unpack it first")
        return ".tar"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first = text.partition(b"\n")[0].strip()
    if suffix not in _KINDS.keys() - {".json"} and text.startswith((b"{", b"[")):
        # Many a file that is called .json has an object a line.
        is_whole = first == b"{" or text.startswith(b"[")
        return ".json" if is_whole or re.match(WRAPPED_ARRAY.encode(), text) else ".jsonl"
    _refuse_utf16(head, suffix)
    if suffix in _KINDS:
        return suffix
    is_text = b"\0" not in text and not text.startswith(b"<")
    if is_text and any(mark in first for mark in (b",", b";", b"\t")):
        return ".csv"
    raise InvalidDatasetError(
        "no layout that is known: wanted Parquet, Arrow, JSON lines, a JSON array, CSV, a "
        f"WebDataset tar or a packed folder, found {suffix or 'another file'}"
    )


def _reader(kind: str, columns: ColumnMap) -> Callable[..., Iterator[Record]]:
    readers: dict[str, Callable[..., Iterator[Record]]] = {
        ".parquet": partial(parquet_rows, columns=columns),
        ".arrow": partial(arrow_rows, columns=columns),
        ".tar": samples,
        ".jsonl": json_lines,
        ".json": json_array,
        ".csv": partial(csv_rows, columns=columns),
        ".tsv": partial(csv_rows, columns=columns),
    }
    return readers[kind]


def _open_folder(root: Path, columns: ColumnMap, *, called: str | None = None) -> Source:
    called = called or f"folder {root.name}"
    files_found = files_below(root)
    data = [path for path in files_found if _ending(path) in _KINDS and _is_data(path)]

    def source(layout: str, found: Iterator[Found], *, files: Iterable[Path]) -> Source:
        used = {*files}
        others = [path.name for path in data if path not in used]
        notes = [f"files are not read: {some_of(others, 3)}"] if others else []
        return Source(layout=layout, found=found, notes=notes)

    if listed := [path for path in data if path.name in METADATA_NAMES]:
        _require_one_listing(root, listed, called=called)
        return source("image folder", _folder_items(root, listed, columns), files=listed)
    if pairs := question_pairs(root):
        found = _pair_items(root, pairs, columns)
        return source("VQA questions and annotations", found, files=chain(*pairs))
    for kind in dict.fromkeys(_KINDS.values()):
        if files := [path for path in data if _KINDS[_ending(path)] == kind]:
            return source(f"folder of {kind}", _folder_items(root, files, columns), files=files)
    pictures = [path for path in files_found if path.suffix.lower()[1:] in PICTURE_KINDS]
    if any(path.parent != root for path in pictures):
        records = class_records(root, pictures, is_asked="question" in columns)
        found = _items(records, columns=columns, pictures=Pictures(root))
        return Source(layout="class folders", found=found)
    endings = sorted({path.suffix.lower() or path.name for path in files_found})
    raise InvalidDatasetError(
        f"no data set in the {called}: wanted {', '.join(METADATA_NAMES)} beside pictures, or "
        f"files of {', '.join(_KINDS)}, found {some_of(endings, 3) if endings else 'nothing'}"
    )


def _ending(path: Path) -> str:
    """The ending that tells what a file is, whichever of its names it has."""
    ending = ".tar" if path.name.lower().endswith(".tar.gz") else path.suffix.lower()
    return _ALIASES.get(ending, ending)


def _require_one_listing(root: Path, listed: list[Path], *, called: str) -> None:
    folders = [path.parent for path in listed]
    for folder in folders:
        if folders.count(folder) > 1:
            names = " and ".join(path.name for path in listed if path.parent == folder)
            where = called if folder == root else f"folder {folder.relative_to(root)}"
            raise InvalidDatasetError(f"the {where} has {names}, wanted one of them")


def _is_data(path: Path) -> bool:
    # Hugging Face keeps intermediate results and notes beside the data.
    is_note = path.name in {INFO_NAME, "dataset_infos.json", _SPLITS_NAME, "state.json"}
    return not (is_note or path.match("cache-*.arrow"))


def _folder_items(root: Path, files: list[Path], columns: ColumnMap) -> Iterator[Found]:
    listed = ListedPictures(root)
    for path in files:
        relative = path.relative_to(root)
        try:
            kind = _kind(path, _ending(path))
        except InvalidDatasetError as error:
            raise InvalidDatasetError(f"{relative}: {error.message}") from None
        records = _reader(kind, columns)(path, name=str(relative))
        pictures = Pictures(path.parent, root=root, listed=listed)
        is_saved = len(relative.parts) > 1 and (path.parent.parent / _SPLITS_NAME).is_file()
        split = path.parent.name if is_saved else split_of(relative)
        yield from _items(records, columns=columns, pictures=pictures, split=split)


def _pair_items(root: Path, pairs: list[tuple[Path, Path]], columns: ColumnMap) -> Iterator[Found]:
    for questions, annotations in pairs:
        split = split_of(annotations.relative_to(root))
        records = pair_records(questions, annotations, root=root, split=split)
        yield from _items(records, columns=columns, pictures=Pictures(root), split=split)
