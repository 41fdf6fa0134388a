"""Questions about a scene, phrased by a small grammar, each with the value that answers it.

Knows English and attributes; knows neither pixels nor tokens. No sentence of it is a question of
easy-VQA (a test compares them), though the words are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tools.pocket.words import SYNONYMS
from tools.pocket.world import ATTRIBUTES, Scene

# How often each kind is asked where nothing else is said.
KIND_SHARES: Final[Mapping[str, float]] = {
    "shape": 0.15,
    "color": 0.15,
    "size": 0.05,
    "count": 0.05,
    "background": 0.03,
    "presence": 0.29,
    "absence": 0.28,
}
_NOUNS: Final = ("picture", "drawing", "scene", "photo")
_THINGS: Final = ("shape", "object", "thing", "figure")
_OWN_NAME_SHARE: Final = 0.7
_IS_THERE_SHARE: Final = 0.5

_PRESENCE: Final = (
    "is there {a} here?",
    "is there {a} in the {noun}?",
    "do you see {a}?",
    "does the image show {a}?",
    "does the {noun} contain {a}?",
    "does the {noun} have {a}?",
    "is {a} shown?",
    "is {a} present here?",
    "is {a} in this image?",
    "can you find {a}?",
)
_ABSENCE: Final = (
    "is there no {bare} here?",
    "is there not {a} here?",
    "is there not {a} in the {noun}?",
    "do you not see {a}?",
    "does the image not show {a}?",
    "does the {noun} not contain {a}?",
    "does the {noun} not have {a}?",
    "is no {bare} shown?",
    "is no {bare} present here?",
    "is {a} missing?",
    "is {a} not in this image?",
)
_WHICH: Final[Mapping[str, tuple[str, ...]]] = {
    "shape": (
        "what shape is this?",
        "what shape is shown here?",
        "which shape is present?",
        "what shape is in the {noun}?",
        "what shape does the {noun} contain?",
        "what shape does the image show?",
        "what is the {color} {other}?",
        "what is this {color} shape?",
        "which shape is it?",
    ),
    "color": (
        "what color is it?",
        "what color is this {thing}?",
        "what color is the {other}?",
        "what color is this {shape}?",
        "which color is the {shape}?",
        "what is the color of this {thing}?",
        "what is the color of the {other}?",
        "what is the color of this {shape}?",
        "which color does the {shape} have?",
    ),
    "size": ("what size is it?", "how big is the {thing}?", "what is the size of the {shape}?"),
    "count": ("how many are there?", "how many {thing}s do you see?", "what is the number?"),
    "background": ("what is the background like?", "how is the background?"),
}


@dataclass(frozen=True)
class Question:
    """A question, its kind, and the value ("yes" and "no" included) that answers it."""

    text: str
    kind: str
    value: str


def sample_question(scene: Scene, rng: np.random.Generator, *, kind: str | None = None) -> Question:
    """A question about the scene, of the given kind or of one drawn at random."""
    chosen = kind or str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
    if chosen in ATTRIBUTES:
        return Question(_phrase(_WHICH[chosen], scene, rng), chosen, scene.value(chosen))
    return _verdict(scene, rng, chosen)


def _phrase(forms: tuple[str, ...], scene: Scene, rng: np.random.Generator) -> str:
    return _draw(forms, rng).format(
        noun=_draw(_NOUNS, rng),
        thing=_draw(_THINGS, rng),
        other=_draw(_THINGS[1:], rng),
        color=_word(scene.value("color"), rng),
        shape=_word(scene.value("shape"), rng),
    )


def _verdict(scene: Scene, rng: np.random.Generator, kind: str) -> Question:
    is_there = rng.random() < _IS_THERE_SHARE
    form = _draw(("color", "shape", "both"), rng)
    sought = scene if is_there else _changed(scene, rng, form)
    color, shape = _word(sought.value("color"), rng), _word(sought.value("shape"), rng)
    describe: Mapping[str, Callable[[], str]] = {
        "color": lambda: f"{color} {_draw(_THINGS, rng)}",
        "shape": lambda: shape,
        "both": lambda: f"{color} {shape}",
    }
    bare = describe[form]()
    article = "an" if bare[0] in "aeiou" else "a"
    forms = _PRESENCE if kind == "presence" else _ABSENCE
    text = _draw(forms, rng).format(a=f"{article} {bare}", bare=bare, noun=_draw(_NOUNS, rng))
    return Question(text, kind, "yes" if is_there == (kind == "presence") else "no")


def _changed(scene: Scene, rng: np.random.Generator, form: str) -> Scene:
    """The scene with another colour, another shape, or either."""
    attribute = _draw(("color", "shape"), rng) if form == "both" else form
    values = {name: getattr(scene, name) for name in ATTRIBUTES}
    count = len(ATTRIBUTES[attribute])
    values[attribute] = (values[attribute] + int(rng.integers(1, count))) % count
    return Scene(**values)


def _word(value: str, rng: np.random.Generator) -> str:
    if rng.random() < _OWN_NAME_SHARE:
        return value
    return _draw(SYNONYMS[value], rng)


def _draw(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
