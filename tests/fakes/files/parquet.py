"""Data sets as Parquet files in the Hugging Face image layout."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app.method.backbone.examples import Example
from app.method.backbone.pictures import shown_digest


def write_parquet(
    path: Path, examples: Sequence[Example], *, pixels_version: int | None = None
) -> Path:
    """Writes the examples; those that share a picture share its bytes.

    With digests of what pictures show where it is said which version of the decoder they are by.
    """
    rows = [
        {
            "image": {"bytes": example.pictures[0].data, "path": None},
            "question": example.question,
            "answers": list(example.answers),
            "pixels": None if pixels_version is None else shown_digest(example.pictures[0]),
        }
        for example in examples
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.replace_schema_metadata({"vlibrary.pixels": str(pixels_version)}), path)
    return path
