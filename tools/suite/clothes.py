"""Tasks about Fashion-MNIST's clothes: their names, and what kind of thing they are."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from tools.suite.debian import unpack
from tools.suite.items import SIDE_PIXELS, Item, Task, generator_of

_ABOUT: Final = "Fashion-MNIST (Debian package dataset-fashion-mnist, MIT)"
_PACKAGE: Final = "dataset-fashion-mnist"
_NAMES: Final = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip
_GROUPS: Final = (
    "top", "legs", "top", "dress", "top", "shoe", "top", "shoe", "bag", "shoe",
)  # fmt: skip
_RANGES: Final = {"train": (0, 1200), "validation": (1200, 1400), "test": (0, 600)}
_CHOOSING: Final = {"train": (2000, 3000), "validation": (3000, 3200), "test": (3200, 3600)}
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049


def read_idx(path: Path) -> np.ndarray:
    """The array of a gzipped IDX file of bytes.

    Raises:
        ValueError: It is none.

    Source: the format of http://yann.lecun.com/exdb/mnist/.
    """
    data = gzip.decompress(path.read_bytes())
    header = np.frombuffer(data, dtype=">i4", count=1)
    rank = {_IMAGES_MAGIC: 3, _LABELS_MAGIC: 1}.get(int(header[0]))
    if rank is None:
        raise ValueError(f"{path.name}: wanted an IDX file of bytes, found magic {int(header[0])}")
    shape = tuple(np.frombuffer(data, dtype=">i4", count=rank, offset=4).tolist())
    return np.frombuffer(data, dtype=np.uint8, offset=4 * (1 + rank)).reshape(shape)


def clothes_folder(work: Path) -> Path:
    """Where the files of the data set lie, fetched where they are missing."""
    return unpack(_PACKAGE, work) / "usr" / "share" / "datasets" / "fashion-mnist"


def clothes_tasks(folder: Path) -> list[Task]:
    """The tasks of the suite."""
    return [
        _task("fashion_name", "what is it?", _NAMES, folder=folder),
        _task("fashion_group", "what kind of thing is it?", _GROUPS, folder=folder),
    ]


def choosing_tasks(folder: Path) -> list[Task]:
    """Tasks that recipes are chosen on, of other pictures."""
    seasons = ("summer", "winter", "winter", "summer", "winter", "summer", "none", "none", "none",
               "winter")  # fmt: skip
    return [_task("choose_season", "which season is it for?", seasons, folder=folder)]


def _task(name: str, question: str, answers: Sequence[str], *, folder: Path) -> Task:
    ranges = _CHOOSING if name.startswith("choose") else _RANGES
    items = {}
    for split, (low, high) in ranges.items():
        source = "t10k" if split == "test" and ranges is _RANGES else "train"
        images = read_idx(folder / f"{source}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{source}-labels-idx1-ubyte.gz")
        order = generator_of("clothes", source).permutation(len(labels))[low:high].tolist()
        items[split] = [
            Item(
                image=Image.fromarray(images[place]).resize(
                    (SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC
                ),
                picture=f"fashion/{source}/{place}",
                question=question,
                answer=answers[int(labels[place])],
            )
            for place in order
        ]
    return Task(name=name, about=f"{_ABOUT}: {question}", items=items)
