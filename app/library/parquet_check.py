"""A script that reads an uploaded Parquet file to its end and says whether it can be trusted.

It runs as a process of its own with a limit on memory and time, because a small file can unfold
into any number of bytes (compression, dictionaries that repeat one value) and because a reader of
hostile bytes may crash. It prints one JSON object: the counts, or the reason for the refusal. It
ends when its standard input does, which is when nobody waits for it any more.

Imports nothing of the app.
"""

import hashlib
import json
import os
import resource
import sys
import threading
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

MAX_ITEMS: Final = 1_000_000
MAX_COLUMNS: Final = 64
MAX_FOOTER_BYTES: Final = 32 * 1024 * 1024
MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
MAX_IMAGE_PIXELS: Final = 20_000_000
MAX_QUESTION_CHARACTERS: Final = 4000
MAX_ANSWER_CHARACTERS: Final = 1000
MAX_ANSWERS: Final = 64
MAX_LABEL_CHARACTERS: Final = 200
IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP")
BATCH_ROWS: Final = 16
CPU_SECONDS: Final = 600

_MAGIC: Final = b"PAR1"
_TAIL_BYTES: Final = 8


class RefusalError(Exception):
    """Why a file is no data set."""


def _refuse(reason: str) -> NoReturn:
    raise RefusalError(reason)


def _check_footer(path: Path) -> None:
    size = path.stat().st_size
    if size < len(_MAGIC) + _TAIL_BYTES:
        _refuse("the file is no Parquet file")
    with path.open("rb") as stream:
        head = stream.read(len(_MAGIC))
        stream.seek(-_TAIL_BYTES, 2)
        tail = stream.read(_TAIL_BYTES)
    if head != _MAGIC or not tail.endswith(_MAGIC):
        _refuse("the file is no Parquet file")
    if int.from_bytes(tail[:4], "little") > min(MAX_FOOTER_BYTES, size):
        _refuse("the file's footer is too large")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    return (
        set(fields) <= {"bytes", "path"}
        and len(fields) == kind.num_fields
        and _is_bytes(fields.get("bytes", pa.null()))
        and _is_text(fields.get("path", pa.string()))
    )


def _is_text_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and _is_text(kind.value_type))


_COLUMNS: Final = {
    "image": (_is_image, "struct{bytes: binary, path: string}"),
    "question": (_is_text, "string"),
    "answer": (_is_text, "string"),
    "answers": (_is_text_list, "list of strings"),
    "id": (_is_label, "string or integer"),
    "image_id": (_is_label, "string or integer"),
    "split": (_is_text, "string"),
}
_LABELS: Final = ("id", "image_id", "split")


def _check_schema(schema: pa.Schema) -> list[str]:
    if len(schema) > MAX_COLUMNS:
        _refuse(f"it has more than {MAX_COLUMNS} columns")
    present = [name for name in _COLUMNS if name in schema.names]
    if not {"image", "question"} <= set(present) or not {"answer", "answers"} & set(present):
        _refuse("wanted the columns image, question, and answer or answers")
    for name in present:
        fits, wanted = _COLUMNS[name]
        if schema.names.count(name) > 1:
            _refuse(f"the column {name} occurs twice")
        if not fits(schema.field(name).type):
            _refuse(f"the column {name} is no {wanted}")
    return present


def _check_image(data: bytes) -> None:
    if len(data) > MAX_IMAGE_BYTES:
        _refuse(f"its image has more than {MAX_IMAGE_BYTES} bytes")
    try:
        with Image.open(BytesIO(data), formats=IMAGE_FORMATS) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        _refuse(f"its image is none of {', '.join(IMAGE_FORMATS)}")
    if width * height > MAX_IMAGE_PIXELS:
        _refuse(f"its image has more than {MAX_IMAGE_PIXELS} pixels")


def _check_text(text: object, *, what: str, most: int) -> None:
    if not isinstance(text, str) or not text.strip():
        _refuse(f"its {what} is empty")
    if len(text) > most:
        _refuse(f"its {what} has more than {most} characters")
    if "\0" in text:
        _refuse(f"its {what} has a NUL")


def _check_row(row: Mapping[str, Any], images: set[bytes]) -> None:
    data = (row["image"] or {}).get("bytes")
    if not data:
        _refuse("its image has no bytes; a path alone is never followed")
    digest = hashlib.sha256(data).digest()
    if digest not in images:
        _check_image(data)
        images.add(digest)
    _check_text(row["question"], what="question", most=MAX_QUESTION_CHARACTERS)
    answers = row.get("answers") or [row.get("answer")]
    if len(answers) > MAX_ANSWERS:
        _refuse(f"it has more than {MAX_ANSWERS} answers")
    for answer in answers:
        _check_text(answer, what="answer", most=MAX_ANSWER_CHARACTERS)
    for name in _LABELS:
        if isinstance(row.get(name), str):
            _check_text(row[name], what=name, most=MAX_LABEL_CHARACTERS)


def _rows(file: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns, use_threads=False):
        yield from batch.to_pylist()


def check(path: Path) -> dict[str, int]:
    """The number of items and of different images in a file that passes every check.

    Raises:
        RefusalError: It does not, and why.
    """
    _check_footer(path)
    images: set[bytes] = set()
    position = -1
    try:
        # Page by page: a column of a row group may be larger than the memory.
        file = pq.ParquetFile(path, buffer_size=1024 * 1024, pre_buffer=False)
        columns = _check_schema(file.schema_arrow)
        if not 0 < file.metadata.num_rows <= MAX_ITEMS:
            _refuse(f"wanted 1 to {MAX_ITEMS} rows, found {file.metadata.num_rows}")
        for position, row in enumerate(_rows(file, columns)):
            if position >= MAX_ITEMS:
                _refuse(f"it has more than {MAX_ITEMS} rows")
            _check_row(row, images)
    except RefusalError as error:
        raise RefusalError(f"row {position}: {error}" if position >= 0 else str(error)) from None
    except MemoryError:
        _refuse("it needs too much memory")
    except (pa.ArrowException, OSError, ValueError):
        _refuse("the file is damaged or no Parquet file")
    return {"num_items": position + 1, "num_images": len(images)}


def _limit_resources(memory_bytes: int) -> None:
    status = Path("/proc/self/status").read_text() if sys.platform == "linux" else ""
    used_kib = next(
        (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")), 0
    )
    most = used_kib * 1024 + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_input() -> None:
    # It is a pipe whose other end closes however the process dies that has it.
    os.read(0, 1)
    os._exit(1)


def main(path: str, memory_bytes: str) -> None:
    """Prints the verdict on one file.

    Args:
        path: The file.
        memory_bytes: What may be allocated beyond what the libraries take.
    """
    threading.Thread(target=_end_with_input, daemon=True).start()
    _limit_resources(int(memory_bytes))
    try:
        verdict: dict[str, Any] = dict(check(Path(path)))
    except RefusalError as error:
        verdict = {"refused": str(error)}
    sys.stdout.write(json.dumps(verdict))


if __name__ == "__main__":
    main(*sys.argv[1:])
