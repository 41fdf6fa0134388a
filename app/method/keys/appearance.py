"""What a picture looks like before anybody understands it: light, colour, edges, coarseness.

A vision tower is trained to see what things are and to look past how they are drawn, but pictures
of two tasks often differ in just that.
"""

from typing import Final

import numpy as np
from jaxtyping import Float
from PIL import Image

WIDTH: Final = 6 + 20 + 8 + 4 + 1 + 8
_SIDE: Final = 64
_LEVELS: Final = 4
_DIRECTIONS: Final = 8
_FLAT: Final = 0.01


def appearance(image: Image.Image) -> Float[np.ndarray, " width"]:
    """Statistics of a picture's pixels, each of the order of 1; independent of its size.

    Mean and spread of the channels; quantiles of lightness, of the two opponent colours and of
    saturation; edges by direction; quantiles of their strength; the share of flat ground; energy
    from fine to coarse.
    """
    small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, dtype=np.float64) / 255
    red, green, blue = np.moveaxis(pixels, 2, 0)
    light = pixels.mean(2)
    saturation = pixels.max(2) - pixels.min(2)
    colours = (light, red - green, (red + green) / 2 - blue, saturation)
    across, down = np.diff(light, axis=1)[:-1], np.diff(light, axis=0)[:, :-1]
    strength = np.hypot(across, down)
    direction = np.mod(np.arctan2(down, across), np.pi)
    edges, _ = np.histogram(direction, _DIRECTIONS, (0, np.pi), weights=strength)
    parts = [
        pixels.mean((0, 1)),
        pixels.std((0, 1)),
        *(np.quantile(colour, (0.05, 0.25, 0.5, 0.75, 0.95)) for colour in colours),
        np.sqrt(edges) / _SIDE,
        np.quantile(strength, (0.5, 0.75, 0.9, 0.97)),
        np.array([np.mean(strength < _FLAT)]),
        _energies(light),
    ]
    return np.concatenate(parts)


def _energies(light: Float[np.ndarray, "side side"]) -> Float[np.ndarray, " energies"]:
    """Root mean square and mean size of what each halving of the picture loses."""
    found = []
    for _ in range(_LEVELS):
        half = len(light) // 2
        coarse = light.reshape(half, 2, half, 2).mean((1, 3))
        lost = light - np.kron(coarse, np.ones((2, 2)))
        found += [np.sqrt((lost**2).mean()), np.abs(lost).mean()]
        light = coarse
    return np.array(found)
