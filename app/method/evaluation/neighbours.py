"""Which solved examples stand before a query when nearness, or the answers, decide."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from app.method.backbone.randomness import generator_for


def nearest_context(similarities: Float[np.ndarray, " support"], *, shots: int) -> tuple[int, ...]:
    """The most similar support items, the nearest last, where it is closest to the query.

    Source: RICES, Yang et al., arXiv 2109.05014.
    """
    order: npt.NDArray[np.int64] = np.argsort(-similarities, kind="stable")[:shots]
    return tuple(int(index) for index in order[::-1])


def balanced_context(
    answers: Sequence[str], *, shots: int, query: int, seed: int
) -> tuple[int, ...]:
    """Demonstrations of as many different answers as possible, in random order."""
    generator = generator_for(seed, "balanced", query)
    rounds: dict[str, int] = {}
    ranks: list[tuple[int, int, int]] = []
    for item in generator.permutation(len(answers)):
        answer = answers[item].casefold()
        rounds[answer] = rounds.get(answer, 0) + 1
        ranks.append((rounds[answer], len(ranks), int(item)))
    chosen = [item for _, _, item in sorted(ranks)[:shots]]
    return tuple(int(item) for item in generator.permutation(chosen))
