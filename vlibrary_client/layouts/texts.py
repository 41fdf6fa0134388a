"""Records of text files: JSON lines, JSON arrays and CSV. One record is in memory at a time."""

import codecs
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.fields import wanted_columns
from vlibrary_client.layouts.items import ColumnMap, Record

MAX_RECORD_BYTES = 64 << 20
_CHUNK_CHARACTERS = 1 << 20
_BOM = b"\xef\xbb\xbf"
# Spreadsheets write the one that numbers of their country do not need.
_DELIMITERS = (",", ";", "\t")
_SCALAR = r'"[^"]*"\s*:\s*(?:"[^"]*"|[\w.+-]+)'
# Challenges write what their data are before the data, and sometimes behind.
WRAPPED_ARRAY = rf'\s*\{{\s*(?:(?!"question"){_SCALAR}\s*,\s*)*"data"\s*:\s*\[(?=\s*\{{)'
_UNDECODED = re.compile("[\udc80-\udcff]")
_BEHIND = re.compile(rf"(?:\s*,\s*{_SCALAR})*\s*\}}\s*|\s*")


class Twice:
    """An object of JSON in which a name occurs twice: nobody knows which one was meant."""

    def __init__(self, name: str) -> None:
        self.name = name


def object_of(pairs: list[tuple[str, Any]]) -> object:
    """An object of JSON; for `json`, which keeps the last of equal names otherwise."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = [name for name, _ in pairs]
    return Twice(next(name for name in names if names.count(name) > 1))


_DECODER = json.JSONDecoder(object_pairs_hook=object_of)


def json_lines(path: Path, *, name: str) -> Iterator[Record]:
    """The objects of a file, one a line; blank lines count but say nothing."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            place = f"{name} line {number}"
            if len(line) > MAX_RECORD_BYTES:
                raise InvalidDatasetError(f"{place}: more than {MAX_RECORD_BYTES} bytes")
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InvalidDatasetError(f"{name}: wanted JSON in UTF-8, found UTF-16")
            line = line.removeprefix(_BOM) if number == 1 else line
            if not line.strip():
                continue
            try:
                value = _DECODER.decode(line.decode())
            except UnicodeDecodeError:
                yield Record(place=place, fields={}, problem="not JSON in UTF-8")
                continue
            except (ValueError, RecursionError):
                value = None
            yield _record(value, place=place)


def _record(value: object, *, place: str) -> Record:
    if isinstance(value, dict):
        return Record(place=place, fields=value)
    problem = "not a JSON object"
    if isinstance(value, Twice):
        problem = f"the name {value.name[:40]} occurs twice in it"
    return Record(place=place, fields={}, problem=problem)


def json_array(path: Path, *, name: str) -> Iterator[Record]:
    """The objects of a file that is one array, or an object with one called data."""
    for number, value in enumerate(array_values(path, name=name)):
        yield _record(value, place=f"{name} item {number}")


def array_values(path: Path, *, name: str, key: str | None = None) -> Iterator[Any]:
    """The values of the array that a JSON file is, or has under a key, one at a time.

    Without a key, an object with an array called data and nothing else but texts and numbers is
    read as that array.

    Raises:
        InvalidDatasetError: There is no such array, or it ends early.
    """
    start = re.compile(
        rf"{WRAPPED_ARRAY}|\s*\[" if key is None else rf'"{re.escape(key)}"\s*:\s*\['
    )
    wanted = "or an object a line" if key is None else f"called {key}"
    try:
        with _opened(path, name) as file:
            buffer = _after(start, file, is_anywhere=key is not None)
            if buffer is None:
                raise InvalidDatasetError(f"{name}: wanted a JSON array of objects, {wanted}")
            while True:
                buffer = buffer.lstrip(" \t\r\n,")
                if buffer.startswith("]"):
                    rest = buffer[1:] + file.read(_CHUNK_CHARACTERS)
                    if key is None and not _BEHIND.fullmatch(rest):
                        raise InvalidDatasetError(f"{name}: something stands behind its array")
                    return
                try:
                    value, end = _DECODER.raw_decode(buffer)
                except json.JSONDecodeError:
                    buffer = _longer(buffer, file, name=name)
                else:
                    yield value
                    buffer = buffer[end:]
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidDatasetError(f"{name}: not JSON in UTF-8{_undecodable(path)}") from error


def _opened(path: Path, name: str) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidDatasetError(f"{name}: cannot read the file: {error.strerror}") from error


def _undecodable(path: Path) -> str:
    """Where the first byte of a file is that is not UTF-8, if there is one."""
    number = 1
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        while text := file.readline(_CHUNK_CHARACTERS):
            if byte := _UNDECODED.search(text):
                before = text[: byte.start()][-20:]
                return (
                    f": line {number} has the byte 0x{ord(byte[0]) - 0xDC00:02x} after {before!r}"
                )
            number += text.endswith("\n")
    return ""


def _after(start: re.Pattern[str], file: TextIO, *, is_anywhere: bool) -> str | None:
    buffer = ""
    while chunk := file.read(_CHUNK_CHARACTERS):
        buffer += chunk
        match = start.search(buffer) if is_anywhere else start.match(buffer)
        if match is not None:
            return buffer[match.end() :]
        if not is_anywhere:
            break
        buffer = buffer[-1000:]
    return None


def _longer(buffer: str, file: TextIO, *, name: str) -> str:
    chunk = file.read(_CHUNK_CHARACTERS)
    if not chunk or len(buffer) > MAX_RECORD_BYTES:
        raise InvalidDatasetError(f"{name}: its array is damaged or cut short")
    return buffer + chunk


def csv_rows(path: Path, *, name: str, columns: ColumnMap) -> Iterator[Record]:
    """The rows of a file whose first line names the columns; empty cells and rows say nothing.

    Args:
        path: The file, with commas, semicolons or tabs between its cells.
        name: Put before a row's line.
        columns: Which column is which.

    Raises:
        InvalidDatasetError: It cannot be read as such, or has no columns of a data set.
    """
    # A picture as a data URL is one cell.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # A quote that is never closed would swallow the rows after it.
            reader = csv.reader(file, delimiter=_delimiter(path), strict=True)
            names = next(reader, [])
            wanted = set(wanted_columns(names, columns))
            number = reader.line_num
            for cells in reader:
                place, number = f"{name} line {number + 1}", reader.line_num
                if not any(cells):
                    continue
                if len(cells) > len(names):
                    problem = "it has more cells than there are columns"
                    yield Record(place=place, fields={}, problem=problem)
                    continue
                pairs = zip(names, cells, strict=False)
                fields = {key: text for key, text in pairs if text and key in wanted}
                yield Record(place=place, fields=fields)
    except InvalidDatasetError as error:
        raise InvalidDatasetError(f"{name}: {error.message}") from None
    except UnicodeDecodeError as error:
        raise InvalidDatasetError(f"{name}: no CSV in UTF-8{_undecodable(path)}") from error
    except csv.Error as error:
        raise InvalidDatasetError(f"{name}: no CSV after line {number}: {error}") from error


def _delimiter(path: Path) -> str:
    """What separates the most names in the first line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline(MAX_RECORD_BYTES)
    return max(_DELIMITERS, key=lambda mark: len(next(csv.reader([line], delimiter=mark), [])))
