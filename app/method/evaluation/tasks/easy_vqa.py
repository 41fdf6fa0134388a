"""easy-VQA: coloured shapes with questions, as the PyPI package `easy-vqa` ships them.

Knows that package's functions and nothing else.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from app.core.errors import ConfigurationError, InvalidInputError
from app.method.evaluation.tasks.pictures import read_picture
from app.method.evaluation.tasks.records import sample_places
from app.method.examples import Example


def load_easy_vqa(*, split: str, limit: int | None, seed: int) -> list[Example]:
    """Items of a split.

    Args:
        split: `train` (4,000 pictures) or `test` (1,000 pictures).
        limit: The most items, chosen at random; None takes all.
        seed: Of the choice.

    Raises:
        ConfigurationError: The package is not installed.
        InvalidInputError: There is no such split.

    Source: https://github.com/vzhou842/easy-VQA (MIT).
    """
    if split not in {"train", "test"}:
        raise InvalidInputError(f"No such split of easy-VQA: wanted train or test, found {split}")
    try:
        package: Any = import_module("easy_vqa")
    except ImportError as error:
        raise ConfigurationError(
            "easy-VQA cannot be read: wanted the package easy-vqa, found none"
        ) from error
    questions, answers, image_ids = getattr(package, f"get_{split}_questions")()
    paths = getattr(package, f"get_{split}_image_paths")()
    pictures = {}
    examples = []
    for place in sample_places(len(questions), limit=limit, seed=seed):
        image_id = image_ids[place]
        if image_id not in pictures:
            pictures[image_id] = read_picture(Path(paths[image_id]))
        examples.append(
            Example(
                image=pictures[image_id],
                question=questions[place],
                answers=(answers[place],),
                image_id=f"easy-vqa/{split}/{image_id}",
                id=f"easy-vqa/{split}/{place}",
            )
        )
    return examples
