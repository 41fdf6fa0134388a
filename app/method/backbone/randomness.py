"""Random numbers by purpose."""

import numpy as np


def generator_for(seed: int, *purpose: int | str) -> np.random.Generator:
    """A generator for one purpose; draws for one purpose never move those for another.

    A purpose is names and numbers, such as `"epoch", 3`.
    """
    words = [int.from_bytes(str(part).encode()[:8], "little") for part in purpose]
    return np.random.default_rng([seed, *words])
