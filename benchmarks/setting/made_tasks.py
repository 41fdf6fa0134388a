"""Tasks made of easy-VQA's pictures, for which renaming what the backbone says is not enough.

Each has one question about each picture, whose answer follows from shape and colour, or from
nothing at all.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np

from app.method.backbone.examples import Example
from app.method.evaluation.tasks.loading import load_examples

SHAPES: Final = ("circle", "rectangle", "triangle")
OTHER_WORDS: Final = dict(zip(SHAPES, ("two", "red", "large"), strict=True))
WARM: Final = frozenset({"red", "yellow", "brown"})
RANDOM_WORDS: Final = ("red", "blue", "one", "two")
_YES_NO: Final = frozenset({"yes", "no"})

Answer: TypeAlias = Callable[[str, str, np.random.Generator], str]

# By name: the question, and its answer from shape, colour and chance.
MADE: Final[Mapping[str, tuple[str, Answer]]] = {
    "colour_of_circles": (
        "what is it?",
        lambda shape, colour, _: colour if shape == "circle" else shape,
    ),
    "other_words": ("what is it called?", lambda shape, _colour, _: OTHER_WORDS[shape]),
    "warm": ("is it warm?", lambda _shape, colour, _: "yes" if colour in WARM else "no"),
    "random": (
        "what is it?",
        lambda _shape, _colour, rng: RANDOM_WORDS[int(rng.integers(len(RANDOM_WORDS)))],
    ),
}
TASKS: Final = ("easy_vqa", *MADE)


def made_task(name: str, *, split: str, count: int, seed: int) -> list[Example]:
    """Items of a task, each about another picture but for easy-VQA's own.

    Args:
        name: One of `TASKS`.
        split: The part of easy-VQA whose pictures are taken.
        count: How many.
        seed: Of the choice.
    """
    if name == "easy_vqa":
        return load_examples("easy-vqa", split=split, limit=count, seed=seed)
    question, answer = MADE[name]
    rng = np.random.default_rng([seed, *name.encode()])
    shown = _pictures(split)
    chosen = [shown[int(place)] for place in rng.permutation(len(shown))[:count]]
    return [
        Example(
            image=example.image,
            question=question,
            answers=(answer(shape, colour, rng),),
            image_id=example.image_id,
            id=f"{name}/{example.image_id}",
        )
        for example, shape, colour in chosen
    ]


def _pictures(split: str) -> list[tuple[Example, str, str]]:
    """An item, the shape and the colour of every picture whose questions tell both."""
    items: dict[str, Example] = {}
    shapes: dict[str, str] = {}
    colours: dict[str, str] = {}
    for example in load_examples("easy-vqa", split=split):
        items.setdefault(example.image_id, example)
        if example.answer in SHAPES:
            shapes[example.image_id] = example.answer
        elif example.answer not in _YES_NO:
            colours[example.image_id] = example.answer
    return [
        (items[known], shapes[known], colours[known])
        for known in sorted(shapes.keys() & colours.keys())
    ]
