"""Groups of points."""

from typing import Final

import numpy as np
from jaxtyping import Float, Int64

_ITERATIONS: Final = 12
# Of products of points and centres that are in memory at a time.
_MOST_PRODUCTS: Final = 2**24


def nearest(
    points: Float[np.ndarray, "points width"], others: Float[np.ndarray, "others width"]
) -> Int64[np.ndarray, " points"]:
    """Which of the others is nearest to each point, the first of equals.

    Args:
        points: Taken some at a time, so that memory stays small however many there are.
        others: At least one.
    """
    offsets = 0.5 * (others**2).sum(1)
    size = max(1, _MOST_PRODUCTS // len(others))
    found: Int64[np.ndarray, " points"] = np.concatenate(
        [
            (points[start : start + size] @ others.T - offsets).argmax(1)
            for start in range(0, len(points), size)
        ]
    )
    return found


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
        group = nearest(points, centres)
        counts = np.bincount(group, minlength=num_centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, group, points)
        filled = counts > 0
        moved = np.where(filled[:, None], sums / np.maximum(counts, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved.astype(points.dtype)
    return centres
