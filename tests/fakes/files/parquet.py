"""Data sets as Parquet files in the Hugging Face image layout."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app.method.backbone.examples import Example


def write_parquet(path: Path, examples: Sequence[Example]) -> Path:
    """Writes the examples; those that share a picture share its bytes."""
    rows = [
        {
            "image": {"bytes": example.pictures[0].data, "path": None},
            "question": example.question,
            "answers": list(example.answers),
        }
        for example in examples
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
