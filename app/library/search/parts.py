"""Rows of two parts, a picture's and a question's: how near, whose own, and whether told apart."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from app.library.task_keys import Float32Array, VectorKeys

# Two tasks of which each takes this share of the other's items for its own cannot be told apart.
OVERLAP_SHARE: Final = 0.5
_LEAST_LENGTH: Final = 1e-6


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
