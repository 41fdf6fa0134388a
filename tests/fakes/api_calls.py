"""Requests that several tests of the api begin with."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from vlibrary_client.layouts.packing import write_parquet

OCTETS = {"content-type": "application/octet-stream"}


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def parquet(folder: Path, *, items: int = 3, splits: Sequence[str] = ()) -> bytes:
    rows = [
        {
            "image": png(),
            "question": f"What? {n}",
            "answer": "red",
            **({"split": splits[n % len(splits)]} if splits else {}),
        }
        for n in range(items)
    ]
    write_parquet(rows, folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


async def upload(
    http: httpx.AsyncClient,
    content: bytes,
    *,
    name: str = "d",
    **choices: Any,  # noqa: ANN401 - query parameters
) -> httpx.Response:
    params = {"name": name, **choices}
    return await http.post("/datasets", params=params, content=content, headers=OCTETS)


async def train(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/train", json={"name": "colours", "dataset": "d", **body})
