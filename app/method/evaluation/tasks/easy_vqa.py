"""easy-VQA: coloured shapes with questions, as the PyPI package `easy-vqa` ships them."""

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from app.core.errors import ConfigurationError, InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import Entries

# The package's own splits, and its training pictures once more in two parts: choices between
# recipes are made on one that nothing was trained on, so that test questions decide nothing.
_SPLITS: Final = {
    "train": ("train", range(4000)),
    "fit": ("train", range(3200)),
    "validation": ("train", range(3200, 4000)),
    "test": ("test", range(1000)),
}


def read_easy_vqa(split: str) -> Entries:
    """Items of a split.

    Args:
        split: `train` (4,000 pictures), `test` (1,000 pictures), or a part of `train`: `fit`
            (its first 3,200 pictures) or `validation` (the other 800).

    Raises:
        ConfigurationError: The package is not installed.
        InvalidInputError: There is no such split.

    Source: https://github.com/vzhou842/easy-VQA (MIT).
    """
    if split not in _SPLITS:
        raise InvalidInputError(
            f"No such split of easy-VQA: wanted {', '.join(_SPLITS)}, found {split}"
        )
    source, numbers = _SPLITS[split]
    try:
        package: Any = import_module("easy_vqa")
    except ImportError as error:
        raise ConfigurationError(
            "easy-VQA cannot be read: wanted the package easy-vqa, found none"
        ) from error
    questions, answers, image_ids = getattr(package, f"get_{source}_questions")()
    paths = getattr(package, f"get_{source}_image_paths")()
    kept = [place for place, image_id in enumerate(image_ids) if int(image_id) in numbers]
    pictures: dict[Any, Picture] = {}

    def make(place: int) -> Example:
        image_id = image_ids[place]
        if image_id not in pictures:
            pictures[image_id] = Picture.of(Path(paths[image_id]).read_bytes())
        return Example(
            image=pictures[image_id],
            question=questions[place],
            answers=(answers[place],),
            image_id=f"easy-vqa/{source}/{image_id}",
            id=f"easy-vqa/{source}/{place}",
        )

    return kept, make
