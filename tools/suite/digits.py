"""Tasks about scikit-learn's handwritten digits: names, parity, comparison, a hidden operator."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from tools.suite.items import SIDE_PIXELS, Item, Task, by_split, generator_of

_ABOUT: Final = "scikit-learn's digits (UCI optical recognition of handwritten digits, CC-BY-4.0)"
NAMES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
_SHARES: Final = {"train": (0, 1000), "validation": (1000, 1200), "test": (1200, 1797)}
_PAIRS: Final = {"train": 1000, "validation": 150, "test": 400}
_INK: Final = 16.0
_LARGEST_TERM: Final = 4


class Digits:
    """Pictures of digits by split, none of them in two.

    Args:
        images: Ink from 0 to 16, `[count, 8, 8]`.
        labels: What each shows.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images, self._labels = images, labels
        order = generator_of("digits").permutation(len(labels))
        self.places = {
            split: order[round(low / 1797 * len(labels)) : round(high / 1797 * len(labels))]
            for split, (low, high) in _SHARES.items()
        }

    def digit(self, place: int) -> int:
        """What a picture shows."""
        return int(self._labels[place])

    def picture(self, place: int, *, side: int = SIDE_PIXELS) -> Image.Image:
        """A picture, dark ink on white."""
        ink = 255 - np.rint(self._images[place] * (255 / _INK)).astype(np.uint8)
        return Image.fromarray(ink).resize((side, side), Image.Resampling.BICUBIC)

    def of_values(self, split: str, values: Sequence[int]) -> np.ndarray:
        """The places of a split that show one of these."""
        places = self.places[split]
        return places[np.isin(self._labels[places], values)]


def load_digits() -> Digits:
    """All 1,797 digits of the package."""
    from sklearn import datasets  # noqa: PLC0415 - takes seconds

    bunch: Any = datasets.load_digits()
    return Digits(bunch.images, bunch.target)


def digit_tasks(digits: Digits) -> list[Task]:
    """The tasks of the suite."""
    return [
        _each(digits, "digits_name", question="which digit is written here?", answers=NAMES),
        _each(digits, "digits_parity", question="odd or even?", answers=("even", "odd") * 5),
        _comparison(digits),
        _operator(digits),
    ]


def _each(digits: Digits, name: str, *, question: str, answers: Sequence[str]) -> Task:
    items = {
        split: [
            Item(
                image=digits.picture(int(place)),
                picture=f"digits/{place}",
                question=question,
                answer=answers[digits.digit(int(place))],
            )
            for place in places
        ]
        for split, places in digits.places.items()
    }
    return Task(name=name, about=f"{_ABOUT}: {question}", items=items)


def _beside(digits: Digits, places: Sequence[int], *, sign: str | None = None) -> Image.Image:
    """Two digits beside each other, with a sign between them."""
    half = SIDE_PIXELS // 2
    canvas = Image.new("L", (SIDE_PIXELS, SIDE_PIXELS), 255)
    width = half - 6 if sign else half
    for column, place in enumerate(places):
        left = column * (SIDE_PIXELS - width)
        canvas.paste(digits.picture(place, side=width), (left, (SIDE_PIXELS - width) // 2))
    if sign:
        draw = ImageDraw.Draw(canvas)
        draw.text((half, half), sign, fill=0, anchor="mm", font_size=14)
    return canvas


def _comparison(digits: Digits) -> Task:
    def make(split: str, rng: np.random.Generator, _number: int) -> Item:
        pair = rng.choice(digits.places[split], 2, replace=False).tolist()
        left, right = (digits.digit(place) for place in pair)
        answer = "equal" if left == right else ("left" if left > right else "right")
        return Item(
            image=_beside(digits, pair),
            picture=f"digits/{pair[0]}+{pair[1]}",
            question="which side has the larger digit?",
            answer=answer,
        )

    about = f"{_ABOUT}: which of two digits is larger"
    return Task(name="digits_compare", about=about, items=by_split(_PAIRS, make, purpose="compare"))


def _operator(digits: Digits) -> Task:
    """VL-ICL's operator induction with one operator, which only the answers tell: plus."""
    small = tuple(range(_LARGEST_TERM + 1))

    def make(split: str, rng: np.random.Generator, _number: int) -> Item:
        pair = rng.choice(digits.of_values(split, small), 2, replace=False).tolist()
        return Item(
            image=_beside(digits, pair, sign="?"),
            picture=f"digits/{pair[0]}?{pair[1]}",
            question="what is the result of the following mathematical expression?",
            answer=str(sum(digits.digit(place) for place in pair)),
        )

    about = f"{_ABOUT}: two digits and a question mark; the operator has to be induced"
    return Task(name="operator", about=about, items=by_split(_PAIRS, make, purpose="operator"))
