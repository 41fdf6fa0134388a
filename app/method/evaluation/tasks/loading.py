"""Finding the reader for what the caller points at.

Knows two kinds: easy-VQA, and data sets as they are stored. Other layouts are converted first.
"""

from pathlib import Path

from app.core.errors import InvalidDatasetError, NotFoundError
from app.core.splits import TRAIN
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.easy_vqa import load_easy_vqa
from app.method.evaluation.tasks.parquet import load_parquet


def load_examples(
    spec: str, *, split: str | None = None, limit: int | None = None, seed: int = 0
) -> list[Example]:
    """The items of a data set.

    Args:
        spec: `easy-vqa`, or the file of a stored data set.
        split: Which part of it; None takes the one to train on, or the only one.
        limit: The most items, chosen at random; None takes all.
        seed: Of the choice.

    Raises:
        NotFoundError: There is no such file.
        InvalidDatasetError: It is no data set, or has no such split.
    """
    if spec == "easy-vqa":
        return load_easy_vqa(split=split or TRAIN, limit=limit, seed=seed)
    path = Path(spec)
    if not path.is_file():
        raise NotFoundError("No such data set: wanted easy-vqa or a file")
    examples = load_parquet(path, split=split, limit=limit, seed=seed)
    if not examples:
        raise InvalidDatasetError("The data set has no items")
    return examples
