"""Items of tasks, and tasks as files that the evaluation reads.

Knows pictures, texts and Parquet; knows no source.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE_PIXELS: Final = 64
SPLITS: Final = ("train", "validation", "test")

_SCHEMA: Final = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("id", pa.string()),
        ("image_id", pa.string()),
        ("split", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """A question about a picture with its answer.

    Attributes:
        image: The picture.
        picture: Names it; no two splits share one.
        question: What is asked.
        answer: What is right.
    """

    image: Image.Image
    picture: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A task before it is written.

    Attributes:
        name: What tables call it.
        about: What is asked, whose pictures they are and under which licence.
        items: By split.
        max_new_tokens: The most tokens of an answer.
    """

    name: str
    about: str
    items: Mapping[str, Sequence[Item]]
    max_new_tokens: int = 12


def generator_of(*purpose: str) -> np.random.Generator:
    """A generator that depends on nothing but its purpose."""
    digest = hashlib.sha256("/".join(purpose).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def by_split(
    counts: Mapping[str, int],
    make: Callable[[str, np.random.Generator, int], Item],
    *,
    purpose: str,
) -> dict[str, list[Item]]:
    """Items that are drawn one by one.

    Args:
        counts: How many of each split.
        make: One item from its split, the split's generator and its number.
        purpose: Tells this task's draws from others'.
    """
    found = {}
    for split, count in counts.items():
        rng = generator_of(purpose, split)
        found[split] = [make(split, rng, number) for number in range(count)]
    return found


def write_suite(name: str, tasks: Sequence[Task], folder: Path) -> None:
    """Writes the tasks and their manifest; the manifest comes last.

    Raises:
        ValueError: A picture is in two splits of a task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = [_write(task, folder) for task in tasks]
    manifest = folder / "suite.json"
    manifest.write_text(json.dumps({"name": name, "tasks": entries}, indent=2) + "\n")


def _write(task: Task, folder: Path) -> dict[str, Any]:
    _check(task)
    rows = [
        {
            "image": {"bytes": _png(item.image), "path": None},
            "question": item.question,
            "answers": [item.answer],
            "id": f"{task.name}/{split}/{number}",
            "image_id": item.picture,
            "split": split,
        }
        for split in SPLITS
        for number, item in enumerate(task.items[split])
    ]
    file = folder / f"{task.name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), file)
    return {
        "name": task.name,
        "file": file.name,
        "digest": hashlib.sha256(file.read_bytes()).hexdigest(),
        "scorer": "exact-match",
        "max_new_tokens": task.max_new_tokens,
        "about": task.about,
        "splits": {split: len(task.items[split]) for split in SPLITS},
        "answers": len({item.answer for items in task.items.values() for item in items}),
    }


def _check(task: Task) -> None:
    # By name and by pixels: two names may be of one picture.
    shown = {
        split: {
            key: item.picture
            for item in task.items[split]
            for key in (item.picture, item.image.convert("RGB").tobytes())
        }
        for split in SPLITS
    }
    for first, second in combinations(SPLITS, 2):
        if both := shown[first].keys() & shown[second].keys():
            found = min(shown[first][key] for key in both)
            raise ValueError(f"{task.name}: {found} is in {first} and in {second}")


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "png")
    return out.getvalue()
