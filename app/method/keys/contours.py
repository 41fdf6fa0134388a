"""What the outlines of a picture are like: straight or bent, of areas or of thin lines.

Drawings on a plain ground share colours, edges and coarseness whatever they show; how their
outlines run tells a polygon from a sign or from writing.

Source: the structure tensor and its coherence, Bigün and Granlund, ICCV 1987.
"""

from typing import Final

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

WIDTH: Final = 24
_SIDE: Final = 64
_WINDOW: Final = 5
_FLAT: Final = 2e-4
_BENT: Final = 0.02
# Every number comes to the order of 1.
_SCALE: Final = 10.0

Grid = Float[np.ndarray, "side side"]


def contours(image: Image.Image) -> Float[np.ndarray, " width"]:
    """Statistics of a picture's outlines, each of the order of 1; independent of its size.

    At full and at half the size: the share of ground with an edge; quantiles of how straight the
    edges are; how strong corners are; how lightness bends, beside how it slopes.
    """
    small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    light = (np.asarray(small, dtype=np.float64) / 255).mean(2)
    half = light.reshape(_SIDE // 2, 2, _SIDE // 2, 2).mean((1, 3))
    return np.concatenate([_outlines(light), _outlines(half)])


def _outlines(light: Grid) -> Float[np.ndarray, " numbers"]:
    down, across = np.gradient(light)
    along, mixed, upright = _near(across**2), _near(across * down), _near(down**2)
    middle = (along + upright) / 2
    reach = np.sqrt(np.maximum(middle**2 - (along * upright - mixed**2), 0))
    strong, weak = middle + reach, np.maximum(middle - reach, 0)
    is_edge = strong > _FLAT
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
