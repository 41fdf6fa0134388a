"""Pictures of drawings: placed, turned, inked, lit and disturbed anew for every view.

Knows pixels; knows neither classes nor words.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from tools.pocket2.chance import mask
from tools.pocket2.pictures.bank import Bank

COLORS: Final = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.97, 0.55, 0.08),
    "yellow": (0.96, 0.87, 0.15),
    "green": (0.12, 0.68, 0.2),
    "turquoise": (0.1, 0.7, 0.7),
    "blue": (0.12, 0.25, 0.86),
    "purple": (0.5, 0.15, 0.65),
    "pink": (0.97, 0.5, 0.75),
    "brown": (0.5, 0.28, 0.14),
    "gray": (0.5, 0.5, 0.5),
    "black": (0.05, 0.05, 0.05),
    "white": (0.96, 0.96, 0.96),
}
_PALETTE: Final = np.array(list(COLORS.values()), np.float32)
_LEAST_CONTRAST: Final = 0.35
_MIDDLE: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where drawings stand, in shares of the side: one entry a drawing.

    Attributes:
        x: Centre, -1 at the left and 1 at the right edge.
        y: Centre, -1 at the top and 1 at the bottom edge.
        scale: Side of the drawing, 1 for the whole picture.
        turn: Radians.
        stretch: Width over height.
    """

    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray
    turn: np.ndarray
    stretch: np.ndarray


def random_placement(count: int, rng: np.random.Generator) -> Placement:
    """Mostly large and near the middle, as pictures of one thing are."""
    scale = np.where(
        mask(rng, 0.7, count), rng.uniform(0.75, 1.0, count), rng.uniform(0.4, 0.8, count)
    )
    room = 1 - scale
    return Placement(
        x=rng.uniform(-1, 1, count) * room,
        y=rng.uniform(-1, 1, count) * room,
        scale=scale,
        turn=np.where(mask(rng, 0.6, count), rng.normal(0, 0.12, count), 0.0),
        stretch=np.exp(rng.normal(0, 0.08, count)),
    )


def place(
    drawings: Float[Tensor, "rows 4 side side"], placement: Placement, *, side: int
) -> Float[Tensor, "rows 4 side side"]:
    """The drawings where they are to stand, on nothing."""
    cos, sin = np.cos(placement.turn), np.sin(placement.turn)
    wide = placement.scale * np.sqrt(placement.stretch)
    high = placement.scale / np.sqrt(placement.stretch)
    # Output to input: undo the shift, then the turn, then the scale.
    matrix = np.stack(
        [
            np.stack([cos / wide, sin / wide, -(cos * placement.x + sin * placement.y) / wide], -1),
            np.stack([-sin / high, cos / high, (sin * placement.x - cos * placement.y) / high], -1),
        ],
        axis=1,
    )
    grid = functional.affine_grid(
        torch.from_numpy(matrix.astype(np.float32)).to(drawings.device),
        [len(drawings), 4, side, side],
        align_corners=False,
    )
    return functional.grid_sample(drawings, grid, mode="bilinear", align_corners=False)


def random_inks(count: int, rng: np.random.Generator) -> np.ndarray:
    """Colours in [0, 1] of shape (count, 3): black most often, else any."""
    named = _PALETTE[rng.integers(len(_PALETTE), size=count)] + rng.normal(0, 0.06, (count, 3))
    dark = np.repeat(rng.uniform(0, 0.2, (count, 1)), 3, 1)
    return np.clip(np.where(mask(rng, 0.35, count)[:, None], dark, named), 0, 1).astype(np.float32)


def random_grounds(count: int, rng: np.random.Generator) -> np.ndarray:
    """Colours in [0, 1] of shape (count, 3): near white, near black, or any."""
    is_light, is_dark = mask(rng, 0.55, count)[:, None], mask(rng, 0.33, count)[:, None]
    light = rng.uniform(0.85, 1, (count, 1)) + rng.normal(0, 0.015, (count, 3))
    dark = rng.uniform(0, 0.15, (count, 1)) + rng.normal(0, 0.015, (count, 3))
    colors = np.where(is_light, light, np.where(is_dark, dark, rng.random((count, 3))))
    return np.clip(colors, 0, 1).astype(np.float32)


def apart(inks: np.ndarray, grounds: np.ndarray) -> np.ndarray:
    """The inks, with those too close to their ground turned into its opposite."""
    close = np.abs(inks - grounds).max(1, keepdims=True) < _LEAST_CONTRAST
    opposite = np.where(
        grounds.mean(1, keepdims=True) > _MIDDLE, inks * 0.25, 1 - (1 - inks) * 0.25
    )
    return np.where(close, opposite, inks).astype(np.float32)


def ground_pictures(
    colors: np.ndarray, rng: np.random.Generator, *, side: int, device: torch.device
) -> Float[Tensor, "rows 3 side side"]:
    """Grounds of these colours, a third of them with a gradient or coarse blotches."""
    count = len(colors)

    def there(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    plain = there(colors)[:, :, None, None].expand(-1, -1, side, side).clone()
    slope = torch.linspace(-1, 1, side, device=device)
    turn = there(rng.uniform(0, 2 * math.pi, count))
    wave = (
        torch.cos(turn)[:, None, None] * slope[None, None]
        + torch.sin(turn)[:, None, None] * slope[None, :, None]
    )
    strength = there(np.where(mask(rng, 0.2, count), rng.uniform(0.05, 0.25, count), 0.0))
    plain += (strength[:, None, None] * wave)[:, None]
    cells = there(rng.normal(0, 1, (count, 3, 6, 6)))
    blotches = functional.interpolate(cells, size=(side, side), mode="bilinear")
    strength = there(np.where(mask(rng, 0.15, count), rng.uniform(0.03, 0.12, count), 0.0))
    return (plain + strength[:, None, None, None] * blotches).clamp(0, 1)


def cover(
    ground: Float[Tensor, "rows 3 side side"], drawings: Float[Tensor, "rows 4 side side"]
) -> Float[Tensor, "rows 3 side side"]:
    """Premultiplied drawings laid over their grounds."""
    return ground * (1 - drawings[:, 3:]) + drawings[:, :3]


def ink_over(
    drawings: Float[Tensor, "rows 4 side side"], inks: np.ndarray, *, one_ink: np.ndarray
) -> Float[Tensor, "rows 4 side side"]:
    """The drawings, those in one ink coloured."""
    factors = np.where(one_ink[:, None], inks, np.float32(1)).astype(np.float32)
    full = np.concatenate([factors, np.ones((len(inks), 1), np.float32)], 1)
    return drawings * torch.from_numpy(full).to(drawings.device)[:, :, None, None]


def disturb(
    pictures: Float[Tensor, "rows 3 side side"],
    rng: np.random.Generator,
    *,
    keeps_color: bool = False,
) -> UInt8[Tensor, "rows 3 side side"]:
    """The pictures as cameras and files would have them: other light, blur, noise, no colour."""
    count = len(pictures)

    def column(values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values.astype(np.float32)).to(pictures.device)
        return tensor.view(count, -1, 1, 1)

    if not keeps_color:
        gray = pictures.mean(1, keepdim=True).expand_as(pictures)
        pictures = torch.lerp(
            pictures,
            gray,
            column(np.where(mask(rng, 0.15, count), 1.0, rng.uniform(0, 0.3, count))),
        )
        pictures = torch.lerp(pictures, 1 - pictures, column(mask(rng, 0.05, count)))
        pictures = pictures * column(rng.uniform(0.85, 1.15, (count, 3))) + column(
            rng.normal(0, 0.03, (count, 3))
        )
    pictures = (
        (pictures - 0.5) * column(rng.uniform(0.75, 1.1, count))
        + 0.5
        + column(rng.normal(0, 0.04, count))
    )
    soft = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pictures = torch.lerp(
        pictures, soft, column(np.where(mask(rng, 0.35, count), rng.uniform(0, 1, count), 0.0))
    )
    dice = torch.Generator(pictures.device).manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(pictures.shape, generator=dice, device=pictures.device)
    noisy = np.where(mask(rng, 0.35, count), rng.uniform(0, 0.05, count), 0.0)
    pictures = pictures + noise * column(noisy)
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def views(
    bank: Bank, rows: np.ndarray, rng: np.random.Generator
) -> UInt8[Tensor, "rows 3 side side"]:
    """A new picture of each of these drawings."""
    drawings = bank.rgba(rows)
    side = drawings.shape[-1]
    placed = place(drawings, random_placement(len(rows), rng), side=side)
    grounds = random_grounds(len(rows), rng)
    one_ink = ~bank.is_colored(rows)
    inks = apart(random_inks(len(rows), rng), grounds)
    picture = cover(
        ground_pictures(grounds, rng, side=side, device=drawings.device),
        ink_over(placed, inks, one_ink=one_ink),
    )
    return disturb(picture, rng)


def normalise(pixels: UInt8[Tensor, "images 3 side side"]) -> Float[Tensor, "images 3 side side"]:
    """The pictures as the bundled image processor hands them to the vision tower."""
    return pixels.float() / 127.5 - 1.0
