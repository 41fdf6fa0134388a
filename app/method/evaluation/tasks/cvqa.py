"""CVQA: Parquet files with a picture, a question in two languages, four options and a label.

Official names: `data/test-*.parquet`; there is only a `test` split, so `support` and `eval` are
halves of our own, by picture, and a result has to say so.

Source: https://huggingface.co/datasets/afaji/cvqa.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from app.core.errors import InvalidDatasetError, InvalidInputError, NotFoundError
from app.core.pictures import PictureFile
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import Entries
from app.method.evaluation.tasks.parquet import batches_of, opened_parquet

SPLITS: Final = ("support", "eval", "test")
_COLUMNS: Final = ("image", "ID", "Subset", "Translated Question", "Translated Options", "Label")


def read_cvqa(folder: Path, split: str) -> Entries:
    """Questions in English with their options behind them; the answer is the right option's text.

    Args:
        folder: With the Parquet files, or with `data/`.
        split: `support` or `eval`, which share no picture, or `test` for both.

    Raises:
        InvalidInputError: There is no such split.
    """
    if split not in SPLITS:
        raise InvalidInputError(f"No such part of CVQA: wanted {', '.join(SPLITS)}, found {split}")
    files = sorted(folder.glob("data/test-*.parquet")) or sorted(folder.glob("*.parquet"))
    if not files:
        raise NotFoundError("The data set lacks its files: wanted data/test-*.parquet, found none")
    places = [
        place
        for place, row in enumerate(_rows(files))
        if split in {"test", _half(row["image"]["bytes"])}
    ]
    # Once more, and alongside those that are wanted: nobody keeps the pictures of the others.
    rows = enumerate(_rows(files))
    pictures = PictureFile()

    def make(wanted: int) -> Example:
        row = next(row for place, row in rows if place == wanted)
        data = row["image"]["bytes"]
        options = row["Translated Options"]
        label = int(row["Label"])
        if not 0 <= label < len(options):
            raise InvalidDatasetError(
                f"{row['ID']}: wanted a label from 0 to {len(options) - 1}, found {label}"
            )
        return Example(
            image=pictures.add(data, pixel_digest=None),
            question=f"{row['Translated Question']} Choices: {', '.join(options)}.",
            answers=(options[label],),
            image_id=hashlib.sha256(data).hexdigest(),
            id=str(row["ID"]),
        )

    return places, make


def _rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in files:
        try:
            with opened_parquet(path) as file:
                if not {*_COLUMNS} <= {*file.schema_arrow.names}:
                    raise InvalidDatasetError(
                        f"{path.name} has another layout: wanted the columns {', '.join(_COLUMNS)}"
                    )
                for batch in batches_of(file, _COLUMNS):
                    yield from map(partial(_with_picture, path), batch.to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise InvalidDatasetError(
                f"{path.name} is damaged or no Parquet file ({type(error).__name__})"
            ) from error


def _with_picture(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    if not row["image"] or not row["image"]["bytes"]:
        raise InvalidDatasetError(
            f"{path.name}: wanted a picture in every row, found none in {row['ID']}"
        )
    return row


def _half(data: bytes) -> str:
    """Which half a picture belongs to; it is the same in every file and on every machine."""
    return "eval" if hashlib.sha256(data).digest()[0] % 2 else "support"
