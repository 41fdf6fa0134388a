"""Composed scenes: several of one drawing, or two drawings beside each other, with what they show.

Knows drawings and pixels; knows no words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tools.pocket2.chance import mask
from tools.pocket2.pictures.bank import Bank
from tools.pocket2.pictures.views import (
    COLORS,
    Placement,
    apart,
    cover,
    disturb,
    ground_pictures,
    ink_over,
    place,
)

MAX_COUNT: Final = 6
SIZES: Final = ("small", "medium", "large")
COLUMNS: Final = ("left", "middle", "right")
LINES: Final = ("top", "center", "bottom")
# How many values each attribute of a scene of one kind of thing has.
ATTRIBUTES: Final[Mapping[str, int]] = {
    "count": MAX_COUNT,
    "size": len(SIZES),
    "column": len(COLUMNS),
    "line": len(LINES),
    "ink": len(COLORS),
    "ground": len(COLORS),
}
UNKNOWN: Final = -1
_SCALES: Final = ((0.26, 0.34), (0.42, 0.52), (0.68, 0.85))
_PALETTE: Final = np.array(list(COLORS.values()), np.float32)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures of several things with what is true of them.

    Attributes:
        pixels: The pictures.
        rows: The drawing (or, for pairs, the two drawings) of each.
        values: For every attribute the index of each scene's value, `UNKNOWN` where it has none.
    """

    pixels: UInt8[Tensor, "scenes 3 side side"]
    rows: np.ndarray
    values: Mapping[str, np.ndarray]


def group_scenes(bank: Bank, rows: np.ndarray, rng: np.random.Generator) -> Scenes:
    """One to six of each drawing, in an ink and on a ground that have names."""
    count = len(rows)
    several = mask(rng, 0.6, count)
    numbers = np.where(several, rng.integers(2, MAX_COUNT + 1, count), 1)
    sizes = np.where(several, 0, rng.integers(len(SIZES), size=count))
    inks, grounds = _two_colors(count, rng)
    values = {
        "count": numbers - 1,
        "size": np.where(several, UNKNOWN, sizes),
        "column": np.full(count, UNKNOWN),
        "line": np.full(count, UNKNOWN),
        "ink": np.where(bank.is_colored(rows), UNKNOWN, inks),
        "ground": grounds,
    }
    cells = np.stack([rng.permutation(9)[:MAX_COUNT] for _ in range(count)])
    alone = ~several & (sizes == 0)
    values["column"][alone] = cells[alone, 0] % 3
    values["line"][alone] = cells[alone, 0] // 3
    placed = []
    drawings = ink_over(bank.rgba(rows), _jittered(inks, rng), one_ink=~bank.is_colored(rows))
    for slot in range(MAX_COUNT):
        low, high = np.array(_SCALES)[sizes].T
        scale = rng.uniform(low, high)
        free = ~several & (sizes > 0)
        x = np.where(free, rng.uniform(-1, 1, count) * (1 - scale), (cells[:, slot] % 3 - 1) * 0.64)
        y = np.where(
            free, rng.uniform(-1, 1, count) * (1 - scale), (cells[:, slot] // 3 - 1) * 0.64
        )
        placed.append(_standing((x, y), scale, rng))
    picture = ground_pictures(
        _jittered(grounds, rng), rng, side=drawings.shape[-1], device=bank.device
    )
    for slot, placement in enumerate(placed):
        shown = torch.from_numpy((numbers > slot).astype(np.float32)).to(bank.device)
        layer = place(drawings, placement, side=drawings.shape[-1])
        picture = cover(picture, layer * shown[:, None, None, None])
    return Scenes(disturb(picture, rng, keeps_color=True), rows, values)


def pair_scenes(bank: Bank, rows: np.ndarray, rng: np.random.Generator) -> Scenes:
    """Two drawings: the first left of the second, or above it.

    Args:
        bank: Of drawings.
        rows: Shape (scenes, 2).
        rng: Of all chance.

    Returns:
        Scenes with the one value `axis`: 0 side by side, 1 one above the other.
    """
    count = len(rows)
    axis = rng.integers(2, size=count)
    _, grounds = _two_colors(count, rng)
    side_color = _jittered(grounds, rng)
    picture = ground_pictures(
        side_color, rng, side=bank.parts[0].pixels.shape[1], device=bank.device
    )
    for slot, sign in ((0, -1), (1, 1)):
        one_ink = ~bank.is_colored(rows[:, slot])
        own = apart(_jittered(rng.integers(len(COLORS), size=count), rng), side_color)
        drawings = ink_over(bank.rgba(rows[:, slot]), own, one_ink=one_ink)
        scale = rng.uniform(0.38, 0.5, count)
        along, across = sign * rng.uniform(0.45, 0.55, count), rng.uniform(-0.3, 0.3, count)
        centre = (np.where(axis == 0, along, across), np.where(axis == 0, across, along))
        placement = _standing(centre, scale, rng)
        picture = cover(picture, place(drawings, placement, side=drawings.shape[-1]))
    return Scenes(disturb(picture, rng), rows, {"axis": axis})


def _standing(
    centre: tuple[np.ndarray, np.ndarray], scale: np.ndarray, rng: np.random.Generator
) -> Placement:
    count = len(scale)
    return Placement(
        x=centre[0] + rng.normal(0, 0.02, count),
        y=centre[1] + rng.normal(0, 0.02, count),
        scale=scale,
        turn=rng.normal(0, 0.06, count),
        stretch=np.exp(rng.normal(0, 0.05, count)),
    )


def _two_colors(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Named inks and grounds, never the same one; white and black grounds most often."""
    usual = np.where(
        mask(rng, 0.7, count), list(COLORS).index("white"), list(COLORS).index("black")
    )
    grounds = np.where(mask(rng, 0.6, count), usual, rng.integers(len(COLORS), size=count))
    inks = (grounds + rng.integers(1, len(COLORS), size=count)) % len(COLORS)
    return inks, grounds


def _jittered(colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    jittered: np.ndarray = _PALETTE[colors] + rng.normal(0, 0.03, (len(colors), 3))
    return jittered.clip(0, 1).astype(np.float32)
