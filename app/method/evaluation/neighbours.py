"""Which solved examples stand before a query when the nearest are taken."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float


def nearest_context(similarities: Float[np.ndarray, " support"], *, shots: int) -> tuple[int, ...]:
    """The most similar support items, the nearest last, where it is closest to the query.

    Source: RICES, Yang et al., arXiv 2109.05014.
    """
    order: npt.NDArray[np.int64] = np.argsort(-similarities, kind="stable")[:shots]
    return tuple(int(index) for index in order[::-1])
