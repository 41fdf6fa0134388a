"""What a picture looks like before anybody understands it: light, colour, edges, outlines.

A vision tower is trained to see what things are and to look past how they are drawn, but pictures
of two tasks often differ in just that. Drawings on a plain ground share colours, edges and
coarseness whatever they show; how their outlines run tells a polygon from a sign or from writing.

Source: outlines by the structure tensor and its coherence, Bigün and Granlund, ICCV 1987.
"""

from typing import Final

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

APPEARANCE_WIDTH: Final = 6 + 20 + 8 + 4 + 1 + 8
CONTOURS_WIDTH: Final = 24
_SIDE: Final = 64
_LEVELS: Final = 4
_DIRECTIONS: Final = 8
_FLAT: Final = 0.01
_WINDOW: Final = 5
_FLAT_OUTLINE: Final = 2e-4
_BENT: Final = 0.02
# Every number of the outlines comes to the order of 1.
_SCALE: Final = 10.0

Grid = Float[np.ndarray, "side side"]


def appearance(image: Image.Image) -> Float[np.ndarray, " width"]:
    """Statistics of a picture's pixels, each of the order of 1; independent of its size.

    Mean and spread of the channels; quantiles of lightness, of the two opponent colours and of
    saturation; edges by direction; quantiles of their strength; the share of flat ground; energy
    from fine to coarse.
    """
    pixels = _pixels(image)
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


def _energies(light: Grid) -> Float[np.ndarray, " energies"]:
    """Root mean square and mean size of what each halving of the picture loses."""
    found = []
    for _ in range(_LEVELS):
        half = len(light) // 2
        coarse = light.reshape(half, 2, half, 2).mean((1, 3))
        lost = light - np.kron(coarse, np.ones((2, 2)))
        found += [np.sqrt((lost**2).mean()), np.abs(lost).mean()]
        light = coarse
    return np.array(found)


def contours(image: Image.Image) -> Float[np.ndarray, " width"]:
    """Statistics of a picture's outlines, each of the order of 1; independent of its size.

    At full and at half the size: the share of ground with an edge; quantiles of how straight the
    edges are; how strong corners are; how lightness bends, beside how it slopes.
    """
    light = _pixels(image).mean(2)
    half = light.reshape(_SIDE // 2, 2, _SIDE // 2, 2).mean((1, 3))
    return np.concatenate([_outlines(light), _outlines(half)])


def _outlines(light: Grid) -> Float[np.ndarray, " numbers"]:
    down, across = np.gradient(light)
    along, mixed, upright = _near(across**2), _near(across * down), _near(down**2)
    middle = (along + upright) / 2
    reach = np.sqrt(np.maximum(middle**2 - (along * upright - mixed**2), 0))
    strong, weak = middle + reach, np.maximum(middle - reach, 0)
    is_edge = strong > _FLAT_OUTLINE
    straight = ((strong - weak) / (strong + weak + 1e-9))[is_edge]
    bend = np.gradient(across, axis=1) + np.gradient(down, axis=0)
    return np.array(
        [
            is_edge.mean(),
            *(np.quantile(straight, (0.1, 0.25, 0.5, 0.75, 0.9)) if len(straight) else np.ones(5)),
            *(np.sqrt(np.quantile(weak, (0.9, 0.97))) * _SCALE / 2),
            np.sqrt((bend**2).mean()) * _SCALE,
            np.sqrt((across**2 + down**2).mean()) * _SCALE,
            (bend > _BENT).mean(),
            (bend < -_BENT).mean(),
        ]
    )


def _near(values: Grid) -> Grid:
    """The mean around each place."""
    padded = np.pad(values, _WINDOW // 2, mode="edge")
    near: Grid = sliding_window_view(padded, (_WINDOW, _WINDOW)).mean((2, 3))
    return near


def _pixels(image: Image.Image) -> Float[np.ndarray, "side side 3"]:
    small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float64) / 255
