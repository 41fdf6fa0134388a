"""Records of text files: JSON lines, JSON arrays and CSV. One record is in memory at a time."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.items import Record

MAX_RECORD_BYTES = 64 << 20
_CHUNK_CHARACTERS = 1 << 20
_BOM = b"\xef\xbb\xbf"


def json_lines(path: Path, *, name: str, split: str | None) -> Iterator[Record]:
    """The objects of a file, one a line; blank lines count but say nothing."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            place = f"{name} line {number}"
            if len(line) > MAX_RECORD_BYTES:
                raise InvalidDatasetError(f"{place}: more than {MAX_RECORD_BYTES} bytes")
            line = line.removeprefix(_BOM) if number == 1 else line
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode())
            except (ValueError, RecursionError):
                value = None
            yield _record(value, place=place, split=split)


def _record(value: object, *, place: str, split: str | None) -> Record:
    if isinstance(value, dict):
        return Record(place=place, fields=value, split=split)
    return Record(place=place, fields={}, problem="not a JSON object", split=split)


def json_array(path: Path, *, name: str, split: str | None) -> Iterator[Record]:
    """The objects of a file that is one array."""
    for number, value in enumerate(array_values(path, name=name)):
        yield _record(value, place=f"{name} item {number}", split=split)


def array_values(path: Path, *, name: str, key: str | None = None) -> Iterator[Any]:
    """The values of the array that a JSON file is, or has under a key, one at a time.

    Raises:
        InvalidDatasetError: There is no such array, or it ends early.
    """
    start = re.compile(r"\s*\[" if key is None else rf'"{re.escape(key)}"\s*:\s*\[')
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8-sig") as file:
            buffer = _after(start, file, name=name, is_anywhere=key is not None)
            while True:
                buffer = buffer.lstrip(" \t\r\n,")
                if buffer.startswith("]"):
                    return
                try:
                    value, end = decoder.raw_decode(buffer)
                except json.JSONDecodeError:
                    buffer = _longer(buffer, file, name=name)
                else:
                    yield value
                    buffer = buffer[end:]
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidDatasetError(f"{name}: not JSON in UTF-8") from error


def _after(start: re.Pattern[str], file: TextIO, *, name: str, is_anywhere: bool) -> str:
    buffer = ""
    while chunk := file.read(_CHUNK_CHARACTERS):
        buffer += chunk
        match = start.search(buffer) if is_anywhere else start.match(buffer)
        if match is not None:
            return buffer[match.end() :]
        if not is_anywhere:
            break
        buffer = buffer[-1000:]
    raise InvalidDatasetError(f"{name}: wanted a JSON array of objects")


def _longer(buffer: str, file: TextIO, *, name: str) -> str:
    chunk = file.read(_CHUNK_CHARACTERS)
    if not chunk or len(buffer) > MAX_RECORD_BYTES:
        raise InvalidDatasetError(f"{name}: its array is damaged or cut short")
    return buffer + chunk


def csv_rows(path: Path, *, name: str, split: str | None) -> Iterator[Record]:
    """The rows of a file whose first line names the columns; empty cells say nothing.

    Raises:
        InvalidDatasetError: It cannot be read as such.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, restkey="", restval=None)
            for row in reader:
                place = f"{name} line {reader.line_num}"
                if "" in row:
                    problem = "it has more cells than there are columns"
                    yield Record(place=place, fields={}, problem=problem, split=split)
                    continue
                fields = {key: _cell(key, text) for key, text in row.items() if text}
                yield Record(place=place, fields=fields, split=split)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDatasetError(f"{name}: no CSV in UTF-8 with a line of column names") from error


def _cell(column: str, text: str) -> object:
    # A list of answers has no other way into a cell.
    if column == "answers" and text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
