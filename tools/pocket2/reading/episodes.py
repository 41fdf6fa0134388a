"""Episodes: items that share what only the earlier items can tell, labels drawn anew for each.

Turns pictures and words into items; knows neither tokens nor a model.
"""

from collections.abc import Callable, Mapping, Sequence
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
_NAMING: Final = ("name", "what is this", "what is shown", "what do you see", "name it", "object")
_ATTRIBUTE: Final[Mapping[str, tuple[str, ...]]] = {
    "count": ("count", "how many", "number of things"),
    "size": ("size", "how large", "what size"),
    "column": ("left middle or right", "horizontal place"),
    "line": ("top center or bottom", "height in the picture"),
    "ink": ("color", "what color", "color of the thing"),
    "ground": ("background", "color behind", "color of the ground"),
}


_FEW: Final = 4


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
            "bind": 0.5, "rule": 0.12, "value": 0.06, "name": 0.16, "frame names": 0.04,
            "frame values": 0.04, "recall": 0.08,
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


def draw_episode(
    material: Material, difficulty: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """One episode of this many items, of a kind drawn by the difficulty's shares."""
    makers: Mapping[str, Callable[..., list[Item]]] = {
        "bind": _binding,
        "rule": _ruling,
        "value": _valuing,
        "name": _naming,
        "frame names": _framing_names,
        "frame values": _framing_values,
        "recall": _recalling,
    }
    kind = str(rng.choice(list(difficulty.shares), p=list(difficulty.shares.values())))
    return makers[kind](material, difficulty, rng, length=length)


def bind(
    material: Material,
    rng: np.random.Generator,
    *,
    ways: int,
    length: int,
    shows_same: bool = False,
) -> list[Item]:
    """Classes under labels that mean nothing; the first item of a class is not taught.

    Args:
        material: What the episode is drawn from.
        rng: Of the draw.
        ways: Classes.
        length: Items.
        shows_same: Whether a class comes back as the very same picture.
    """
    chosen = rng.choice(material.numbers, size=ways, replace=False).tolist()
    labels = material.words.labels(ways, rng)
    asked = _question(material, rng)
    # Bursts: some classes come much oftener than others.
    weights = rng.dirichlet(np.full(ways, float(rng.uniform(0.7, 4.0))))
    first = [int(rng.choice(material.classes[number])) for number in chosen]
    items, seen = [], set[int]()
    for way in rng.choice(ways, size=length, p=weights).tolist():
        picture = first[way] if shows_same else int(rng.choice(material.classes[chosen[way]]))
        items.append(Item(picture, asked, labels[way], is_taught=way in seen))
        seen.add(way)
    return items


def _binding(
    material: Material, difficulty: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    most = max(2, min(difficulty.max_ways, length // 2))
    ways = int(np.exp(rng.uniform(np.log(2), np.log(most + 0.99))))
    shows_same = happens(rng, difficulty.same_picture)
    return bind(material, rng, ways=ways, length=length, shows_same=shows_same)


def _valuing(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """One attribute of scenes, asked for by its name and told in plain words."""
    name = str(rng.choice(list(VALUE_WORDS)))
    asked = str(rng.choice(_ATTRIBUTE[name]))
    return [
        Item(picture, asked, VALUE_WORDS[name][value])
        for picture, value in _valued(material, rng, name=name, length=length)
    ]


def _ruling(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """One attribute of scenes that no question names, in plain words or under labels."""
    name = str(rng.choice(list(VALUE_WORDS)))
    says_words = happens(rng, 0.4)
    labels = material.words.labels(len(VALUE_WORDS[name]), rng)
    texts = VALUE_WORDS[name] if says_words else labels
    asked = _question(material, rng)
    most = len(VALUE_WORDS[name]) if happens(rng, 0.5) else _FEW
    items, seen = [], set[int]()
    for picture, value in _valued(material, rng, name=name, length=length, most=most):
        # One plain word tells which attribute is meant, and so all others.
        is_known = bool(seen) if says_words else value in seen
        items.append(Item(picture, asked, texts[value], is_taught=is_known))
        seen.add(value)
    return items


def _valued(
    material: Material, rng: np.random.Generator, *, name: str, length: int, most: int = 99
) -> list[tuple[int, int]]:
    """Scenes with their values of one attribute, at most so many different ones."""
    values = [value for value, rows in enumerate(material.scenes[name]) if len(rows)]
    values = rng.permutation(values)[:most].tolist()
    return [
        (int(rng.choice(material.scenes[name][value])), value)
        for value in rng.choice(values, size=length).tolist()
    ]


def _naming(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """Things by their own names."""
    asked = str(rng.choice(_NAMING))
    return [Item(picture, asked, name) for picture, name in _named(material, rng, length)]


def _framing_names(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    return frame(material, _named(material, rng, length), rng, question=str(rng.choice(_NAMING)))


def _framing_values(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    name = str(rng.choice(list(VALUE_WORDS)))
    valued = _valued(material, rng, name=name, length=length)
    pairs = [(picture, VALUE_WORDS[name][value]) for picture, value in valued]
    return frame(material, pairs, rng, question=str(rng.choice(_ATTRIBUTE[name])))


def frame(
    material: Material,
    pairs: Sequence[tuple[int, str]],
    rng: np.random.Generator,
    *,
    question: str,
) -> list[Item]:
    """Pictures with their answers inside words drawn once, or in capitals.

    Only the first item cannot know how answers are said.
    """
    before = material.words.phrase(int(rng.integers(0, 3)), rng)
    after = material.words.phrase(int(rng.integers(0 if before else 1, 3)), rng)
    is_upper = happens(rng, 0.25)
    items = []
    for index, (picture, answer) in enumerate(pairs):
        said = [before, answer.upper() if is_upper else answer, after]
        items.append(Item(picture, question, " ".join(filter(None, said)), is_taught=index > 0))
    return items


def _recalling(
    material: Material, _: Difficulty, rng: np.random.Generator, *, length: int
) -> list[Item]:
    """Words bound to labels without a picture: looking up what was said before."""
    ways = max(2, min(12, length // 2))
    keys, labels = material.words.labels(ways, rng), material.words.labels(ways, rng)
    items, seen = [], set[int]()
    for way in rng.integers(ways, size=length).tolist():
        items.append(Item(None, keys[way], labels[way], is_taught=way in seen))
        seen.add(way)
    return items


def _named(material: Material, rng: np.random.Generator, length: int) -> list[tuple[int, str]]:
    """Pictures with their names, few of the classes much oftener than the others."""
    pool = rng.choice(material.numbers, size=max(2, length))
    numbers = pool[(len(pool) * rng.random(length) ** 1.5).astype(int)].tolist()
    return [(int(rng.choice(material.classes[n])), material.names[n]) for n in numbers]


def _question(material: Material, rng: np.random.Generator) -> str:
    """What every item of an episode asks; it tells nothing."""
    if happens(rng, 0.3):
        return "?"
    if happens(rng, 0.3):
        return str(rng.choice(_NAMING))
    return material.words.phrase(int(rng.integers(1, 6)), rng)
