"""The key of a task: items of its own, and how near to them its other items lie."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64

from app.core.errors import InvalidInputError
from app.method.backbone.randomness import generator_for

MAX_EXEMPLARS: Final = 64
# Of a task's own items, so many are given up to keep others out; words vary less than pictures.
IMAGE_REFUSALS: Final = 0.03
QUESTION_REFUSALS: Final = 0.01
_SLACK: Final = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskKey:
    """Where a task lies.

    Attributes:
        exemplars: Rows of up to 64 of its items, each of length 1.
        image_width: Numbers of a row that belong to the picture.
        threshold: Least cosine of a picture with the nearest exemplar's picture.
        text_threshold: Least cosine of a question with the nearest exemplar's question.
    """

    exemplars: Float32[np.ndarray, "exemplars width"]
    image_width: int
    threshold: float
    text_threshold: float


def build_task_key(
    rows: Float32[np.ndarray, "items width"],
    *,
    image_width: int,
    seed: int = 0,
    image_refusals: float = IMAGE_REFUSALS,
) -> TaskKey:
    """The key of the task that these items belong to.

    Each item is held against exemplars that are other items than itself, as a query will be.

    Args:
        rows: Of all items, at least one; each has a picture and a question.
        image_width: Numbers of a row that belong to the picture.
        seed: Of the choice of exemplars.
        image_refusals: The share of a task's pictures that is given up.

    Raises:
        InvalidInputError: There is no item.
    """
    if not len(rows):
        raise InvalidInputError("No key without items: wanted at least one, found none")
    order = generator_for(seed, "exemplars").permutation(len(rows))[:MAX_EXEMPLARS]
    exemplars = rows[order]
    is_self = order[None, :] == np.arange(len(rows))[:, None]
    parts = (slice(0, image_width), slice(image_width, None))
    nearest = [_nearest(rows[:, part], exemplars[:, part], is_self=is_self) for part in parts]
    return TaskKey(
        exemplars=exemplars,
        image_width=image_width,
        threshold=_lowest(nearest[0], share=image_refusals),
        text_threshold=_lowest(nearest[1], share=QUESTION_REFUSALS),
    )


def _nearest(
    rows: Float32[np.ndarray, "items part"],
    exemplars: Float32[np.ndarray, "exemplars part"],
    *,
    is_self: Bool[np.ndarray, "items exemplars"],
) -> Float64[np.ndarray, " items"]:
    """Each item's cosine with the nearest exemplar that is not the item itself."""
    if len(rows) == 1:
        return np.ones(1)
    # The parts of a row have the length sqrt(1/2).
    cosines = 2.0 * (rows.astype(np.float64) @ exemplars.T.astype(np.float64))
    best: Float64[np.ndarray, " items"] = np.where(is_self, -1.0, cosines).max(1)
    return best


def _lowest(similarities: Float64[np.ndarray, " items"], *, share: float) -> float:
    """What all but this share reach, as split conformal prediction counts for an unseen item.

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005.
    """
    place = max(0, int(share * (len(similarities) + 1)) - 1)
    return float(np.clip(np.sort(similarities)[place] - _SLACK, -1.0, 1.0))
