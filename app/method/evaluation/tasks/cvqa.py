"""CVQA: Parquet files with a picture, a question in two languages, four options and a label.

Official names: `data/test-*.parquet`; there is only a `test` split, so `support` and `eval` are
halves of our own, by picture, and a result has to say so.

Source: https://huggingface.co/datasets/afaji/cvqa.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.errors import InvalidDatasetError, InvalidInputError, NotFoundError
from app.core.pictures import PictureFile
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import Entries

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
    rows = [row for path in files for row in _rows(path)]
    chosen = [row for row in rows if split in {"test", _half(row["image"]["bytes"])}]
    pictures = PictureFile()

    def make(row: dict[str, Any]) -> Example:
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

    return chosen, make


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InvalidDatasetError(
            f"{path.name} has another layout: wanted the columns {', '.join(_COLUMNS)}"
        ) from error
    if any(row["image"] is None for row in found):
        raise InvalidDatasetError(f"{path.name}: wanted a picture in every row, found none in some")
    return found


def _half(data: bytes) -> str:
    """Which half a picture belongs to; it is the same in every file and on every machine."""
    return "eval" if hashlib.sha256(data).digest()[0] % 2 else "support"
