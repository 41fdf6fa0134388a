"""Data sets as they are stored: Parquet in the Hugging Face image layout.

The columns are `image{bytes, path}`, `question`, `answers` (or `answer`), and, where the set was
written by this library, `id`, `image_id`, `split`, `_place` and `pixels`. Every row was checked
when the set was stored. Pictures stay encoded, in a file of their own.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.errors import InvalidDatasetError, StorageFullError, is_out_of_space
from app.core.pictures import Picture, PictureFile
from app.core.pixels import PIXELS_VERSION
from app.core.splits import TRAIN, choose_split
from app.method.backbone.examples import Example
from app.method.backbone.randomness import sample_places

_COLUMNS: Final = (
    *("image", "question", "answer", "answers"),
    *("id", "image_id", "split", "_place", "pixels"),
)
_BATCH_ROWS: Final = 16
_BUFFER_BYTES: Final = 1 << 20
_PIXELS_KEY: Final = b"vlibrary.pixels"


def load_parquet(path: Path, *, split: str | None, limit: int | None, seed: int) -> list[Example]:
    """Items of a stored data set, whose pictures take room beside the file.

    Without a split, of the one to train on, or of the only one.

    Raises:
        InvalidDatasetError: The file is no stored data set, or it has no such split.
        StorageFullError: There is no room.
    """
    try:
        with opened_parquet(path) as file:
            rows = _places(file, split)
            chosen = [rows[place] for place in sample_places(len(rows), limit=limit, seed=seed)]
            return list(_examples(file, frozenset(chosen), pictures=PictureFile(path.parent)))
    except (pa.ArrowException, OSError) as error:
        if is_out_of_space(error):
            raise StorageFullError("There is no room left for the data set's pictures") from error
        raise InvalidDatasetError(
            "The data set cannot be read: wanted Parquet with image, question and answer columns",
            details={"reason": type(error).__name__},
        ) from error


def opened_parquet(path: Path) -> pq.ParquetFile:
    """The file, to be read page by page: what is buffered ahead of use stays in memory."""
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def batches_of(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a file, a few in memory at a time."""
    yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=[*columns], use_threads=False)


def _places(file: pq.ParquetFile, wanted: str | None) -> list[int]:
    """Numbers of the rows of a split."""
    count = file.metadata.num_rows
    if "split" not in file.schema_arrow.names:
        return list(range(count))
    names = file.read(columns=["split"]).column("split").to_pylist()
    named = Counter(name for name in names if name)
    if named and None in names:
        named[TRAIN] += names.count(None)
    chosen = choose_split(named, wanted)
    if chosen is None:
        return list(range(count))
    return [place for place, name in enumerate(names) if (name or TRAIN) == chosen]


def _examples(
    file: pq.ParquetFile, wanted: frozenset[int], *, pictures: PictureFile
) -> Iterator[Example]:
    schema = file.schema_arrow
    known = [name for name in schema.names if name in _COLUMNS]
    is_current = (schema.metadata or {}).get(_PIXELS_KEY) == str(PIXELS_VERSION).encode()
    place = 0
    for batch in batches_of(file, known):
        places = range(place, place + len(batch))
        place += len(batch)
        if wanted.isdisjoint(places):
            continue
        for number, row in zip(places, batch.to_pylist(), strict=True):
            if number in wanted:
                if not is_current:
                    row["pixels"] = None
                yield _example(row, number, pictures)


def _example(row: dict[str, Any], number: int, pictures: PictureFile) -> Example:
    place = row.get("_place") or f"row {number}"
    question = _text(row.get("question"), place=place)
    picture = _picture(row, pictures)
    # Texts that ask the same are kept together, as items of one picture are.
    shown = question if picture is None else picture.pixel_digest or picture.digest
    return Example(
        image=picture,
        question=question,
        answers=_answers(row, place=place),
        image_id=str(row.get("image_id") or shown),
        id=str(row.get("id") or place),
    )


def _picture(row: dict[str, Any], pictures: PictureFile) -> Picture | None:
    image = row.get("image")
    data = image.get("bytes") if isinstance(image, dict) else image
    return pictures.add(data, pixel_digest=row.get("pixels")) if data else None


def _text(value: object, *, place: str) -> str:
    if not isinstance(value, str):
        raise InvalidDatasetError(
            f"{place}: wanted a question as text, found {type(value).__name__}"
        )
    return value


def _answers(row: dict[str, Any], *, place: str) -> tuple[str, ...]:
    found = row.get("answers") or row.get("answer")
    answers = (found,) if isinstance(found, str) else tuple(found or ())
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise InvalidDatasetError(f"{place}: wanted answers as text, found {type(found).__name__}")
    return answers
