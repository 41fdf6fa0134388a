"""Rows of two parts, a picture's and a question's: how near, whose own, and whether told apart.

A threshold of its own keeps out what looks like no task; the lead keeps out what looks more like
another task of the library than like this one.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from app.library.task_keys import Float32Array, VectorKeys

# Two tasks of which each takes this share of the other's items for its own cannot be told apart.
OVERLAP_SHARE: Final = 0.5
_LEAST_LENGTH: Final = 1e-6

# Two tasks' pictures differ if all but this share of each lie nearer to their own.
LEAD_REFUSALS: Final = 0.05
# A picture must lead over the nearest of so many other names.
MAX_RIVALS: Final = 64
_SAME_PICTURE: Final = 1 - 1e-5


def parts_of(query: Float32Array, *, image_width: int | None) -> dict[str, Float32Array]:
    """What of a query is to be compared, each `[dimension]` and zero outside its part.

    A key times one of them is the cosine of that part; with rows of one part, of the whole row.

    The query is `[dimension]` of length 1; `image_width` numbers of it belong to the picture, None
    where rows have one part.
    """
    if image_width is None:
        return {"row": query}
    found = {}
    for name, part in (("image", slice(0, image_width)), ("text", slice(image_width, None))):
        length = float(np.linalg.norm(query[part]))
        if length > _LEAST_LENGTH:
            alone = np.zeros_like(query)
            # The parts of a key have the length sqrt(1/2).
            alone[part] = query[part] * (np.sqrt(2.0) / length)
            found[name] = alone
    return found


def accepts(
    keys: VectorKeys, rows: Float32Array, *, image_width: int | None, parts: Iterable[str]
) -> npt.NDArray[np.bool_]:
    """`[rows]`: which keys of another task the thresholds of this one let through.

    `keys` are of the one, `rows`, `[rows, dimension]`, of the other; `parts` are those that a
    query has, and `image_width` is as for `parts_of`.
    """
    if image_width is None:
        is_near = (keys.embeddings @ rows.T).max(0) >= keys.threshold
        return np.asarray(is_near, dtype=bool)
    limits = {"image": keys.threshold, "text": keys.text_threshold or 0.0}
    bounds = {"image": slice(0, image_width), "text": slice(image_width, None)}
    is_near = np.ones(len(rows), dtype=bool)
    for name in parts:
        part = bounds[name]
        nearest = 2.0 * (keys.embeddings[:, part] @ rows[:, part].T).max(0)
        is_near &= nearest >= limits[name]
    return is_near


def cannot_tell_apart(
    one: VectorKeys,
    other: VectorKeys,
    *,
    image_width: int | None,
    parts: Sequence[str] = ("image", "text"),
) -> bool:
    """Whether each of two tasks takes most of the other's items for its own."""
    return all(
        accepts(judge, judged.embeddings, image_width=image_width, parts=parts).mean()
        >= OVERLAP_SHARE
        for judge, judged in ((one, other), (other, one))
    )


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
