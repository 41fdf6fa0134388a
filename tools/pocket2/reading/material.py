"""What episodes are drawn from: pictures by class and by what they show, words, items.

Knows pictures and words; knows neither tokens nor a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tools.pocket2.chance import happens
from tools.pocket2.gallery import GROUP, VIEW, Gallery
from tools.pocket2.pictures.scenes import COLUMNS, LINES, SIZES
from tools.pocket2.pictures.views import COLORS
from tools.pocket2.reading.words import Words

VALUE_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "count": ("one", "two", "three", "four", "five", "six"),
    "size": SIZES,
    "column": COLUMNS,
    "line": LINES,
    "ink": tuple(COLORS),
    "ground": tuple(COLORS),
}
NAMING: Final = ("name", "what is this", "what is shown", "what do you see", "name it", "object")
ATTRIBUTE_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "count": ("count", "how many", "number of things"),
    "size": ("size", "how large", "what size"),
    "column": ("left middle or right", "horizontal place"),
    "line": ("top center or bottom", "height in the picture"),
    "ink": ("color", "what color", "color of the thing"),
    "ground": ("background", "color behind", "color of the ground"),
}


@dataclass(frozen=True)
class Item:
    """One turn: a picture of the gallery (or none), what is asked, what is to be said.

    Attributes:
        picture: Number in the gallery.
        question: The user's text.
        answer: The model's.
        is_taught: Whether the answer can be known from what stands before it.
    """

    picture: int | None
    question: str
    answer: str
    is_taught: bool = True


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard episodes are made.

    Attributes:
        max_ways: Most classes an episode binds.
        same_picture: Share of binding episodes that show the very same picture again.
        shares: Of the kinds of episodes.
    """

    max_ways: int = 32
    same_picture: float = 0.1
    shares: Mapping[str, float] = field(
        default_factory=lambda: {
            "bind": 0.46, "rule": 0.1, "value": 0.04, "name": 0.12, "frame names": 0.04,
            "frame values": 0.04, "recall": 0.06, "ask": 0.08, "check": 0.06,
        }
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Material:
    """What episodes are drawn from.

    Attributes:
        gallery: Pictures.
        words: What may be said.
        names: What each class is called, by class number.
        classes: Pictures of one drawing by class.
        numbers: Those classes.
        scenes: Groups by attribute and value.
    """

    gallery: Gallery
    words: Words
    names: Sequence[str]
    classes: Mapping[int, np.ndarray]
    numbers: np.ndarray
    scenes: Mapping[str, tuple[np.ndarray, ...]]


def gather(gallery: Gallery, words: Words, names: Sequence[str]) -> Material:
    """A gallery with its pictures sorted for episodes."""
    classes = gallery.members(VIEW)
    is_group = gallery.kinds == GROUP
    scenes = {
        name: tuple(
            np.flatnonzero(is_group & (gallery.values[name] == v)) for v in range(len(texts))
        )
        for name, texts in VALUE_WORDS.items()
    }
    return Material(gallery, words, names, classes, np.array(sorted(classes)), scenes)


def valued(
    material: Material, rng: np.random.Generator, *, name: str, length: int, most: int = 99
) -> list[tuple[int, int]]:
    """Scenes with their values of one attribute, at most so many different ones."""
    values = [value for value, rows in enumerate(material.scenes[name]) if len(rows)]
    values = rng.permutation(values)[:most].tolist()
    return [
        (int(rng.choice(material.scenes[name][value])), value)
        for value in rng.choice(values, size=length).tolist()
    ]


def empty_question(material: Material, rng: np.random.Generator) -> str:
    """What every item of an episode asks; it tells nothing."""
    if happens(rng, 0.3):
        return "?"
    if happens(rng, 0.3):
        return str(rng.choice(NAMING))
    most = 14 if happens(rng, 0.3) else 6
    return material.words.phrase(int(rng.integers(1, most)), rng)
