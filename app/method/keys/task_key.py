"""The key of a task: items of its own, and how near to them its other items lie."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64

from app.core.errors import InvalidInputError
from app.method.backbone.randomness import generator_for

MAX_EXEMPLARS: Final = 64
# A task's pictures reach so far below what they reach on average. The lowest of a few items would
# tell less: it lies elsewhere for every draw of them.
IMAGE_DEVIATIONS: Final = 2.75
# Questions repeat, so theirs is what all but this share of the items reach.
QUESTION_REFUSALS: Final = 0.01
_SAME_PICTURE: Final = 1 - 1e-5
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
    image_deviations: float = IMAGE_DEVIATIONS,
) -> TaskKey:
    """The key of the task that these items belong to.

    Each item is held against exemplars that are others than itself, and show other pictures where
    pictures are compared, as a query will be.

    Args:
        rows: Of all items, at least one; each has a picture and a question.
        image_width: Numbers of a row that belong to the picture.
        seed: Of the choice of exemplars.
        image_deviations: Standard deviations from the mean of the pictures' cosines, each with
            the nearest other one, down to the threshold.

    Raises:
        InvalidInputError: There is no item.
    """
    if not len(rows):
        raise InvalidInputError("No key without items: wanted at least one, found none")
    order = generator_for(seed, "exemplars").permutation(len(rows))[:MAX_EXEMPLARS]
    exemplars = rows[order]
    images, questions = slice(0, image_width), slice(image_width, None)
    cosines = _cosines(rows[:, images], exemplars[:, images])
    # A picture that several items ask about says nothing of unseen ones.
    picture_cosines = _nearest(cosines, is_left_out=cosines >= _SAME_PICTURE)
    is_self = order[None, :] == np.arange(len(rows))[:, None]
    question_cosines = _nearest(
        _cosines(rows[:, questions], exemplars[:, questions]), is_left_out=is_self
    )
    return TaskKey(
        exemplars=exemplars,
        image_width=image_width,
        threshold=_threshold(picture_cosines.mean() - image_deviations * picture_cosines.std()),
        text_threshold=_threshold(_lowest(question_cosines, share=QUESTION_REFUSALS)),
    )


def _cosines(
    rows: Float32[np.ndarray, "items part"], exemplars: Float32[np.ndarray, "exemplars part"]
) -> Float64[np.ndarray, "items exemplars"]:
    # The parts of a row have the length sqrt(1/2).
    return 2.0 * (rows.astype(np.float64) @ exemplars.T.astype(np.float64))


def _nearest(
    cosines: Float64[np.ndarray, "items exemplars"],
    *,
    is_left_out: Bool[np.ndarray, "items exemplars"],
) -> Float64[np.ndarray, " items"]:
    """Each item's cosine with the nearest exemplar that it is held against; 1 without any."""
    best = np.where(is_left_out, -np.inf, cosines).max(1)
    found: Float64[np.ndarray, " items"] = np.where(np.isneginf(best), 1.0, best)
    return found


def _lowest(similarities: Float64[np.ndarray, " items"], *, share: float) -> float:
    """What all but this share reach, as split conformal prediction counts for an unseen item.

    Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005.
    """
    place = max(0, int(share * (len(similarities) + 1)) - 1)
    return float(np.sort(similarities)[place])


def _threshold(cosine: float) -> float:
    return float(np.clip(cosine - _SLACK, -1.0, 1.0))
