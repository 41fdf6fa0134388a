"""Parquet in the Hugging Face image layout: `image{bytes, path}`, `question`, `answer(s)`.

Knows that layout; optional columns are `id`, `image_id` and `split`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.errors import InvalidDatasetError
from app.core.pictures import PictureFile
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.records import make_example, sample_places

_COLUMNS: Final = ("image", "question", "answer", "answers", "id", "image_id", "split")
_BATCH_ROWS: Final = 256


def load_parquet(
    paths: Sequence[Path], *, split: str, limit: int | None, seed: int
) -> list[Example]:
    """Items of one or several files, read as one; rows that name another split are left out.

    Args:
        paths: Files of the same layout.
        split: Wanted where rows name one.
        limit: The most items, chosen at random; None takes all.
        seed: Of the choice.

    Raises:
        InvalidDatasetError: A file is no Parquet of this layout, or a field is missing.
        InvalidImageError: A picture cannot be read.
    """
    try:
        wanted = set(sample_places(_count(paths, split), limit=limit, seed=seed))
        pictures = PictureFile()
        return [
            _example(row, place, pictures)
            for place, row in enumerate(_rows(paths, split, _COLUMNS))
            if place in wanted
        ]
    except (pa.ArrowException, OSError) as error:
        raise InvalidDatasetError(
            "The data set cannot be read: wanted Parquet with image, question and answer columns",
            details={"reason": type(error).__name__},
        ) from error


def _count(paths: Sequence[Path], split: str) -> int:
    return sum(1 for _ in _rows(paths, split, ("split", "question")))


def _rows(paths: Sequence[Path], split: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            known = [name for name in file.schema_arrow.names if name in columns]
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=known):
                rows: list[dict[str, Any]] = batch.to_pylist()
                yield from (row for row in rows if (row.get("split") or split) == split)


def _example(row: dict[str, Any], place: int, pictures: PictureFile) -> Example:
    image = row.get("image")
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        raise InvalidDatasetError(
            f"Row {place}: wanted the bytes of an image, found {type(data).__name__}"
        )
    picture = pictures.add(data)
    known = {key: value for key, value in row.items() if value is not None}
    return make_example(known, item=f"row-{place}", image=picture, image_id=picture.digest)
