"""Which records of a data set are read."""

import numpy as np


def sample_places(count: int, *, limit: int | None, seed: int) -> list[int]:
    """Which records to read, ascending: all of them, or `limit` chosen at random."""
    if limit is None or limit >= count:
        return list(range(count))
    chosen = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return sorted(int(place) for place in chosen)
