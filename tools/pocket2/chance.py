"""Whether something happens, from a generator of the caller's."""

import numpy as np
from jaxtyping import Bool


def happens(rng: np.random.Generator, share: float) -> bool:
    """True in this share of all calls."""
    return bool(rng.random() < share)


def mask(rng: np.random.Generator, share: float, count: int) -> Bool[np.ndarray, " count"]:
    """For each of `count` things whether it happens to it, in this share of all."""
    return rng.random(count) < share
