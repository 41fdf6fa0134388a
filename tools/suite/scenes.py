"""Tasks about scenes composed of emoji: how many there are, and where the larger one is."""

from typing import Final

import numpy as np
from PIL import Image

from tools.suite.emoji import Drawing, Drawings
from tools.suite.items import SIDE_PIXELS, Item, Task, by_split, generator_of

_COUNTS: Final = {"train": 1000, "validation": 150, "test": 400}
_ABOUT: Final = "scenes of OpenMoji's drawings (CC-BY-SA-4.0) of held-out classes"
_MOST: Final = 6
_CELLS: Final = 3
_SIDES: Final = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
_SHARES: Final = (0.6, 0.7)


def scene_tasks(drawings: Drawings) -> list[Task]:
    """The tasks of the suite; every split has classes of its own."""
    mine = [one for found in drawings.by_key.values() for one in found if one.vendor == "openmoji"]
    order = [mine[int(place)] for place in generator_of("scenes").permutation(len(mine))]
    low, high = (round(share * len(order)) for share in _SHARES)
    pools = {"train": order[:low], "validation": order[low:high], "test": order[high:]}

    def count(split: str, rng: np.random.Generator, number: int) -> Item:
        drawing = pools[split][int(rng.integers(len(pools[split])))]
        copies = int(rng.integers(1, _MOST + 1))
        return Item(
            image=_copies(drawing, copies, rng),
            picture=f"counting/{split}/{number}",
            question="give the number of things in the picture",
            answer=str(copies),
        )

    def relate(split: str, rng: np.random.Generator, number: int) -> Item:
        chosen = rng.choice(len(pools[split]), 2, replace=False)
        side = str(rng.choice(list(_SIDES)))
        return Item(
            image=_pair([pools[split][int(place)] for place in chosen], side, rng),
            picture=f"relations/{split}/{number}",
            question="seen from the small thing, where is the large one?",
            answer=side,
        )

    return [
        Task(
            name="counting",
            about=f"{_ABOUT}: how many there are, one to six",
            items=by_split(_COUNTS, count, purpose="counting"),
        ),
        Task(
            name="relations",
            about=f"{_ABOUT}: on which side of the small thing the large one is",
            items=by_split(_COUNTS, relate, purpose="relations"),
        ),
    ]


def _ground(rng: np.random.Generator) -> Image.Image:
    color = tuple(int(value) for value in rng.integers(210, 256, size=3))
    return Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS), color)


def _put(canvas: Image.Image, drawing: Drawing, box: tuple[int, int, int]) -> None:
    left, top, side = box
    small = drawing.image.resize((side, side), Image.Resampling.BICUBIC)
    canvas.paste(small, (left, top), small)


def _copies(drawing: Drawing, copies: int, rng: np.random.Generator) -> Image.Image:
    canvas = _ground(rng)
    cell = SIDE_PIXELS // _CELLS
    for place in rng.choice(_CELLS**2, copies, replace=False).tolist():
        row, column = divmod(place, _CELLS)
        side = int(rng.integers(cell - 5, cell + 1))
        _put(canvas, drawing, (column * cell + (cell - side) // 2, row * cell, side))
    return canvas


def _pair(drawings: list[Drawing], side: str, rng: np.random.Generator) -> Image.Image:
    canvas = _ground(rng)
    large, small = int(rng.integers(28, 33)), int(rng.integers(12, 17))
    right, down = _SIDES[side]
    center = SIDE_PIXELS // 2
    for drawing, size, sign in ((drawings[0], large, 1), (drawings[1], small, -1)):
        reach = (SIDE_PIXELS - size) // 2
        slack = int(rng.integers(-4, 5))
        x = center + sign * right * reach - size // 2 + (slack if down else 0)
        y = center + sign * down * reach - size // 2 + (slack if right else 0)
        _put(canvas, drawing, (x, y, size))
    return canvas
