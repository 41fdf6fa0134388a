"""Random numbers by purpose."""

import numpy as np


def generator_for(seed: int, *purpose: int | str) -> np.random.Generator:
    """A generator for one purpose; draws for one purpose never move those for another.

    A purpose is names, of which the first eight bytes count, and numbers, such as `"epoch", 3`.
    """
    words = [int.from_bytes(str(part).encode()[:8], "little") for part in purpose]
    return np.random.default_rng([seed, *words])


def sample_places(count: int, *, limit: int | None, seed: int) -> list[int]:
    """Places of a sequence, ascending: all of them, or `limit` chosen at random."""
    if limit is None or limit >= count:
        return list(range(count))
    chosen = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return sorted(int(place) for place in chosen)
