"""Data sets as callers upload them, and what the check at the door says."""

import asyncio
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from app.core.pictures import PictureLimits
from app.library.datasets import convert_upload
from app.library.records import DatasetReport
from app.library.uploads.dataset_check import verdict_on

LIMITS = PictureLimits(
    max_bytes=10 << 20, max_pixels=20_000_000, min_side=8, max_side=8192, max_aspect=20
)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(color: int = 0, *, kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (color, 0, 0)).save(stream, kind)
    return stream.getvalue()


def rows(count: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "image": {"bytes": picture(number % 2), "path": "../../etc/passwd"},
            "question": f"What is number {number}?",
            "answer": str(number),
        }
        for number in range(count)
    ]


def write(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    schema: pa.Schema | None = None,
    **options: object,
) -> Path:
    path = folder / "data.parquet"
    if schema is None:
        fields = [("image", IMAGE), ("question", pa.string()), ("answer", pa.string())]
        schema = pa.schema(fields)
    pq.write_table(pa.Table.from_pylist(list(items), schema=schema), path, **options)
    return path


def unfolding(folder: Path, *, side: int, count: int) -> Path:
    """A file that names one picture many times."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    value = pa.array([stream.getvalue()], pa.binary())
    blobs = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), value)
    image = pa.StructArray.from_arrays([blobs], ["bytes"])
    texts = pa.array(["x"] * count)
    path = folder / "unfolding.parquet"
    pq.write_table(pa.table({"image": image, "question": texts, "answer": texts}), path)
    return path


def verdict(path: Path, **options: bool) -> dict[str, Any]:
    return verdict_on(
        {
            "source": str(path),
            "target": str(path.with_name("stored.parquet")),
            "columns": {},
            "question": None,
            "limits": asdict(LIMITS),
            "options": options,
        }
    )


def refused(path: Path) -> str:
    return str(verdict(path)["refused"])


def convert(path: Path, **options: Any) -> DatasetReport:  # noqa: ANN401 - passed on
    target = path.with_name("stored.parquet")
    return asyncio.run(convert_upload(path, target, limits=LIMITS, **options))
