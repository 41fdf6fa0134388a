"""Tasks about easy-VQA's coloured shapes: its own questions, other words, other languages, rules.

The suite has the package's training pictures 0 to 2,799 and its test pictures; the others choose
recipes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final

from PIL import Image

from tools.suite.items import Item, Task, generator_of

_ABOUT: Final = "easy-VQA (PyPI package easy-vqa, MIT)"
_RANGES: Final = {"train": range(2400), "validation": range(2400, 2800), "test": range(1000)}
_CHOOSING: Final = {
    "train": range(2800, 3600),
    "validation": range(3600, 3800),
    "test": range(3800, 4000),
}
_MOST: Final = {"train": 1200, "validation": 200, "test": 600}
_SHAPES: Final = ("circle", "triangle", "rectangle")
_SPANISH: Final = {
    "circle": "círculo", "triangle": "triángulo", "rectangle": "rectángulo", "red": "rojo",
    "green": "verde", "blue": "azul", "yellow": "amarillo", "gray": "gris", "black": "negro",
    "teal": "turquesa", "brown": "marrón",
}  # fmt: skip
_GERMAN: Final = {
    "red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb", "gray": "grau",
    "black": "schwarz", "teal": "türkis", "brown": "braun",
}  # fmt: skip
_NICKNAMES: Final = {"circle": "disc", "triangle": "wedge", "rectangle": "box"}
_WARM: Final = frozenset({"red", "yellow", "brown"})

_Ask = Callable[[str, str, int], tuple[str, str]]
"""From shape, colour and a number to a question and its answer."""


def shape_tasks() -> list[Task]:
    """The tasks of the suite."""
    return [
        _original(),
        _task("easy_vqa_spanish", "colour or shape, asked and answered in Spanish", _spanish),
        _task("easy_vqa_nickname", "the shape by another name", _nickname),
        _task("easy_vqa_rule", "the colour if it is a circle, otherwise the shape", _rule),
    ]


def choosing_tasks() -> list[Task]:
    """Tasks that recipes are chosen on."""
    asked: list[tuple[str, str, _Ask]] = [
        ("choose_german", "the colour in German", _german),
        ("choose_warm", "the shape if the colour is warm, otherwise the colour", _warm),
    ]
    return [_task(name, about, ask, ranges=_CHOOSING) for name, about, ask in asked]


def _spanish(shape: str, color: str, number: int) -> tuple[str, str]:
    if number % 2:
        return "¿de qué color es la figura?", _SPANISH[color]
    return "¿qué figura es?", _SPANISH[shape]


def _nickname(shape: str, _color: str, _number: int) -> tuple[str, str]:
    return "what do you call this form?", _NICKNAMES[shape]


def _rule(shape: str, color: str, _number: int) -> tuple[str, str]:
    return "what is to be said here?", color if shape == "circle" else shape


def _german(_shape: str, color: str, _number: int) -> tuple[str, str]:
    return "welche Farbe hat die Form?", _GERMAN[color]


def _warm(shape: str, color: str, _number: int) -> tuple[str, str]:
    return "which word belongs here?", shape if color in _WARM else color


def _task(
    name: str, about: str, ask: _Ask, *, ranges: Mapping[str, Sequence[int]] = _RANGES
) -> Task:
    items = {}
    for split, numbers in ranges.items():
        source = "test" if split == "test" and ranges is _RANGES else "train"
        facts = _facts(source)
        known = [number for number in numbers if number in facts]
        order = generator_of(name, split).permutation(known)[: _MOST[split]].tolist()
        items[split] = [
            _item(source, number, asked=ask(*facts[number], place))
            for place, number in enumerate(order)
        ]
    return Task(name=name, about=f"{_ABOUT}: {about}", items=items)


def _original() -> Task:
    items = {}
    for split, numbers in _RANGES.items():
        source = "test" if split == "test" else "train"
        rows = [row for row in _questions(source) if row[2] in numbers]
        order = generator_of("easy_vqa", split).permutation(len(rows))[: _MOST[split]]
        items[split] = [
            _item(source, rows[int(place)][2], asked=rows[int(place)][:2]) for place in order
        ]
    return Task(name="easy_vqa", about=f"{_ABOUT}: its own questions of all kinds", items=items)


def _item(source: str, number: int, *, asked: tuple[str, str]) -> Item:
    with Image.open(_paths(source)[number]) as image:
        return Item(
            image=image.convert("RGB"),
            picture=f"easy-vqa/{source}/{number}",
            question=asked[0],
            answer=asked[1],
        )


@cache
def _paths(source: str) -> dict[int, str]:
    package: Any = import_module("easy_vqa")
    paths: dict[int, str] = getattr(package, f"get_{source}_image_paths")()
    return paths


@cache
def _questions(source: str) -> list[tuple[str, str, int]]:
    """Question, answer and picture of everything that the package asks."""
    package: Any = import_module("easy_vqa")
    questions, answers, pictures = getattr(package, f"get_{source}_questions")()
    return [(q, a, int(p)) for q, a, p in zip(questions, answers, pictures, strict=True)]


@cache
def _facts(source: str) -> dict[int, tuple[str, str]]:
    """Shape and colour of each picture whose questions tell both."""
    shapes: dict[int, str] = {}
    colors: dict[int, str] = {}
    for _question, answer, picture in _questions(source):
        if answer in _SHAPES:
            shapes[picture] = answer
        elif answer not in {"yes", "no"}:
            colors[picture] = answer
    return {
        picture: (shapes[picture], colors[picture]) for picture in shapes.keys() & colors.keys()
    }
