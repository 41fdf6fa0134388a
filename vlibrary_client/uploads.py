"""Turns what callers have of a data set into one Parquet file in the Hugging Face image layout.

The columns are `image` (a struct of `bytes` and `path`), `question` and `answers` (a list of
texts). Images are kept as they are encoded; nothing is decoded, and one batch is in memory at a
time. Knows nothing of HTTP.

Four kinds of sources are understood:

* a **folder** with a `metadata.jsonl` beside its images, as the `imagefolder` layout of Hugging
  Face has it, one JSON object a line::

      {"file_name": "red_circle.png", "question": "What colour is it?", "answer": "red"}
      {"file_name": "bus.jpg", "question": "What is this?", "answers": ["bus", "a bus"]}

* a **.jsonl file** of the same lines, whose images lie relative to the file's own folder;
* a **.parquet file**, which is sent as it is and must have the columns `image`, `question` and
  `answer` or `answers`;
* an **iterable** of mappings with `image` (a Pillow image, encoded bytes or a path), `question` and
  `answer` or `answers`; `image_id` may name the image, otherwise its content does, so that
  questions about one image stay together when items are split.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from vlibrary_client.errors import InvalidDatasetError, InvalidImageError
from vlibrary_client.images import ImageSource, image_bytes

METADATA_FILE = "metadata.jsonl"
BATCH_ITEMS = 512
BATCH_BYTES = 32 << 20
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
    ]
)

Item: TypeAlias = Mapping[str, Any]
DatasetSource: TypeAlias = str | PathLike[str] | Iterable[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    image: bytes
    path: str
    question: str
    answers: tuple[str, ...]


@contextmanager
def parquet_file(source: DatasetSource) -> Iterator[Path]:
    """A Parquet file of the source, gone again afterwards unless it was the source itself.

    Raises:
        InvalidDatasetError: The source is missing, empty, or has an item that cannot be used.
    """
    if isinstance(source, str | PathLike) and Path(source).suffix.lower() == ".parquet":
        yield _existing(Path(source))
        return
    with tempfile.TemporaryDirectory(prefix="vlibrary-") as folder:
        target = Path(folder) / "dataset.parquet"
        write_parquet(source, target)
        yield target


def write_parquet(source: DatasetSource, target: Path) -> int:
    """Writes the source's items to `target` and returns how many there were.

    Raises:
        InvalidDatasetError: The source is missing, empty, or has an item that cannot be used.
    """
    num_items = 0
    with pq.ParquetWriter(target, SCHEMA, compression="zstd") as writer:
        for batch in _batches(_rows(source)):
            writer.write_batch(_record_batch(batch))
            num_items += len(batch)
    if num_items == 0:
        raise InvalidDatasetError("the source has no items")
    return num_items


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InvalidDatasetError(f"{path.name} does not exist")
    return path


def _rows(source: DatasetSource) -> Iterator[_Row]:
    if not isinstance(source, str | PathLike):
        yield from (_row(item, place=f"item {index}") for index, item in enumerate(source))
        return
    path = _existing(Path(source))
    metadata = _existing(path / METADATA_FILE) if path.is_dir() else path
    with metadata.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row_of_line(line, metadata.parent, place=f"{metadata.name} line {number}")


def _row_of_line(line: str, folder: Path, *, place: str) -> _Row:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise InvalidDatasetError(f"{place}: not a JSON object") from error
    if not isinstance(item, dict):
        raise InvalidDatasetError(f"{place}: not a JSON object")
    name = item.get("file_name", item.get("image"))
    if not isinstance(name, str) or not name:
        raise InvalidDatasetError(f"{place}: wanted the image's file_name")
    # A list from elsewhere must not be able to send other files of this machine.
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise InvalidDatasetError(f"{place}: the image lies outside of the folder")
    return _row({**item, "image": folder / name, "image_id": name}, place=place)


def _row(item: object, *, place: str) -> _Row:
    if not isinstance(item, Mapping) or "image" not in item:
        raise InvalidDatasetError(f"{place}: wanted a mapping with image, question and answer")
    question = item.get("question")
    if not _is_text(question):
        raise InvalidDatasetError(f"{place}: wanted a question of text")
    image = _image(item["image"], place=place)
    path = item.get("image_id") or _content_name(image)
    return _Row(
        image=image,
        path=str(path),
        question=str(question),
        answers=_answers(item, place=place),
    )


def _is_text(value: object) -> bool:
    """Whether it is text that says something and that UTF-8 can hold."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _image(source: ImageSource, *, place: str) -> bytes:
    try:
        return image_bytes(source)
    except InvalidImageError as error:
        raise InvalidDatasetError(f"{place}: {error.message}") from error
    except TypeError as error:
        raise InvalidDatasetError(f"{place}: wanted an image, bytes or a path") from error


def _content_name(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()[:32]


def _answers(item: Item, *, place: str) -> tuple[str, ...]:
    given = item.get("answers", item.get("answer"))
    answers = [given] if isinstance(given, str) else given
    if not isinstance(answers, Sequence) or not answers:
        raise InvalidDatasetError(f"{place}: wanted an answer, or a list of answers")
    if not all(map(_is_text, answers)):
        raise InvalidDatasetError(f"{place}: an answer is empty or no text")
    return tuple(answers)


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    num_bytes = 0
    for row in rows:
        batch.append(row)
        num_bytes += len(row.image)
        if len(batch) >= BATCH_ITEMS or num_bytes >= BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _record_batch(rows: Sequence[_Row]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [
            {
                "image": {"bytes": row.image, "path": row.path},
                "question": row.question,
                "answers": list(row.answers),
            }
            for row in rows
        ],
        schema=SCHEMA,
    )
