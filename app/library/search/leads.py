"""By how much pictures of one task lie nearer to it than to another, where the two differ.

A threshold of its own keeps out what looks like no task; the lead keeps out what looks more like
another task of the library than like this one.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from app.library.task_keys import Float32Array

# Two tasks' pictures differ if all but this share of each lie nearer to their own.
LEAD_REFUSALS: Final = 0.05
# A picture must lead over the nearest of so many other names.
MAX_RIVALS: Final = 64
_SAME_PICTURE: Final = 1 - 1e-5


def own_similarities(own: Float32Array, *, image_width: int) -> Float32Array:
    """`[keys]`: each picture's cosine with the nearest other one of the same task; -1 without.

    Its keys are `[keys, dimension]`, of which `image_width` numbers belong to the picture.
    """
    pictures = own[:, :image_width]
    # The parts of a key have the length sqrt(1/2).
    among = 2.0 * pictures @ pictures.T
    # Several items may show one picture.
    among[among >= _SAME_PICTURE] = -1.0
    np.fill_diagonal(among, -1.0)
    nearest: Float32Array = among.max(1)
    return nearest


def least_lead(
    one: Float32Array, other: Float32Array, *, image_width: int, refusals: float = LEAD_REFUSALS
) -> float:
    """By how much a picture of the one task has to lie nearer to it than to the other.

    Halfway between what nearly all pictures of the one reach and what nearly none of the other
    do, each held against the rest of its own, as an unseen one would be. `-inf` where that is no
    gap: such tasks have the same pictures, or too few to tell.

    Their keys are `[keys, dimension]`, of which `image_width` numbers belong to the picture;
    `refusals` is the share of each task's pictures that may lie on the wrong side.
    """
    across = 2.0 * one[:, :image_width] @ other[:, :image_width].T
    own = np.sort(own_similarities(one, image_width=image_width) - across.max(1))
    foreign = np.sort(across.max(0) - own_similarities(other, image_width=image_width))
    reached = own[_place(len(own), refusals)]
    missed = foreign[-1 - _place(len(foreign), refusals)]
    return float(reached + missed) / 2 if reached > missed else -np.inf


def _place(count: int, share: float) -> int:
    return max(0, int(share * (count + 1)) - 1)


def nearest_of_each(
    codes: npt.NDArray[np.int32], cosines: Float32Array, *, limit: int = MAX_RIVALS + 1
) -> list[int]:
    """The places nearest to a query, best first, one of each name and at most so many.

    Codes and cosines are `[places]`; codes are equal for one name.
    """
    count = len(codes)
    size = min(4 * limit, count)
    while size:
        places = np.argpartition(-cosines, size - 1)[:size]
        places = places[np.argsort(-cosines[places], kind="stable")]
        _, first = np.unique(codes[places], return_index=True)
        if len(first) >= limit or size == count:
            return [int(place) for place in places[np.sort(first)][:limit]]
        size = min(4 * size, count)
    return []
