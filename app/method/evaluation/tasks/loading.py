"""Finding the reader for what the caller points at.

Other layouts are converted first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from app.core.errors import InvalidDatasetError, NotFoundError
from app.core.splits import TRAIN
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.aokvqa import read_aokvqa_da, read_aokvqa_mc
from app.method.evaluation.tasks.cvqa import read_cvqa
from app.method.evaluation.tasks.easy_vqa import read_easy_vqa
from app.method.evaluation.tasks.gqa import read_gqa
from app.method.evaluation.tasks.official import Entries, read_some
from app.method.evaluation.tasks.parquet import load_parquet
from app.method.evaluation.tasks.vizwiz import read_vizwiz
from app.method.evaluation.tasks.vqa import read_vqa


@dataclass(frozen=True, kw_only=True)
class Official:
    """A benchmark in the files that its makers publish.

    Attributes:
        splits: What is meant where none is named: the part to learn from, and the one to ask, whose
            answers have to be public.
    """

    read: Callable[[Path, str], Entries]
    scorer: str
    splits: tuple[str, str] = (TRAIN, "val")


OFFICIAL: Final = {
    "vqav2": Official(read=partial(read_vqa, prefix="v2_"), scorer="vqa"),
    "okvqa": Official(read=partial(read_vqa, prefix=""), scorer="okvqa"),
    "vizwiz": Official(read=read_vizwiz, scorer="vqa"),
    "gqa": Official(read=read_gqa, scorer="gqa", splits=("train_balanced", "testdev_balanced")),
    "aokvqa-mc": Official(read=read_aokvqa_mc, scorer="exact-match"),
    "aokvqa-da": Official(read=read_aokvqa_da, scorer="aokvqa-direct"),
    "cvqa": Official(read=read_cvqa, scorer="exact-match", splits=("support", "eval")),
}
"""By the name before the colon in `gqa:/data/gqa`."""


def find_official(spec: str) -> tuple[Official, Path] | None:
    """The benchmark and the folder that a text such as `gqa:/data/gqa` means, if it means one."""
    name, colon, folder = spec.partition(":")
    return (OFFICIAL[name], Path(folder)) if colon and name in OFFICIAL else None


def usual_splits(spec: str) -> tuple[str, str]:
    """The parts of a data set to learn from and to ask where none is named."""
    found = find_official(spec)
    return (TRAIN, "test") if found is None else found[0].splits


def load_examples(
    spec: str, *, split: str | None = None, limit: int | None = None, seed: int = 0
) -> list[Example]:
    """The items of a data set.

    Args:
        spec: `easy-vqa`, `NAME:FOLDER` with a name of `OFFICIAL`, or the file of a stored data set.
        split: Which part of it; None takes the one to train on, or the only one.
        limit: The most items, chosen at random; None takes all.
        seed: Of the choice.

    Raises:
        NotFoundError: There is no such file, or a picture is missing.
        InvalidDatasetError: It is no data set, or has no such split.
    """
    if spec == "easy-vqa":
        return read_some(partial(read_easy_vqa, split or TRAIN), limit=limit, seed=seed)
    official = find_official(spec)
    if official is not None:
        known, folder = official
        entries = partial(known.read, folder, split or known.splits[0])
        return read_some(entries, limit=limit, seed=seed)
    path = Path(spec)
    if not path.is_file():
        raise NotFoundError("No such data set: wanted easy-vqa or a file")
    examples = load_parquet(path, split=split, limit=limit, seed=seed)
    if not examples:
        raise InvalidDatasetError("The data set has no items")
    return examples
