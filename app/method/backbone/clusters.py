"""Groups of points.

Knows points; not what they stand for.
"""

from typing import Final

import numpy as np
from jaxtyping import Float, Int64

_ITERATIONS: Final = 12


def _nearest_centre(
    points: Float[np.ndarray, "items width"], centres: Float[np.ndarray, "centres width"]
) -> Int64[np.ndarray, " items"]:
    offsets = 0.5 * (centres**2).sum(1)
    best: Int64[np.ndarray, " items"] = (points @ centres.T - offsets).argmax(1)
    return best


def k_means(
    points: Float[np.ndarray, "items width"], num_centres: int, *, generator: np.random.Generator
) -> Float[np.ndarray, "centres width"]:
    """Centres of groups of points, by Lloyd's iterations from distinct random points.

    Args:
        points: At least `num_centres` of them.
        num_centres: Groups wanted; an empty group keeps its last centre.
        generator: Chooses where to start.
    """
    start = generator.choice(len(points), size=num_centres, replace=False)
    centres = points[np.sort(start)].copy()
    for _ in range(_ITERATIONS):
        group = _nearest_centre(points, centres)
        counts = np.bincount(group, minlength=num_centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, group, points)
        filled = counts > 0
        moved = np.where(filled[:, None], sums / np.maximum(counts, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved.astype(points.dtype)
    return centres
