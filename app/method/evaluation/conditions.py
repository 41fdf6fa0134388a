"""Under which condition a backbone is asked: with what before the query, and with which vectors.

Knows examples and similarities; knows no score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32
from torch.nn import functional

from app.core.errors import InvalidInputError
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.randomness import generator_for
from app.method.evaluation.neighbours import nearest_context
from app.method.steering.vectors import InContextVectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """How every item of an evaluation is asked.

    Made by `zero_shot`, `n_shot`, `knn` and `steered`.

    Attributes:
        name: `zero-shot`, `icl`, `knn-icl` or `m2iv`.
        shots: Demonstrations before each query.
        support: What demonstrations are chosen from.
        seed: Of random choices.
        vectors: What steers, if anything does.
        strength: Factor over the vectors.
    """

    name: Literal["zero-shot", "icl", "knn-icl", "m2iv"]
    shots: int = 0
    support: tuple[Example, ...] = ()
    seed: int = 0
    vectors: InContextVectors | None = None
    strength: float = 1.0


def zero_shot() -> Condition:
    """No demonstrations and no vectors."""
    return Condition(name="zero-shot")


def _check_support(support: Sequence[Example], shots: int) -> tuple[Example, ...]:
    if not 1 <= shots <= len(support):
        raise InvalidInputError(
            f"Wanted at least one shot and as many support items, found {shots} shots and "
            f"{len(support)} items",
            details={"shots": shots, "support": len(support)},
        )
    return tuple(support)


def n_shot(support: Sequence[Example], *, shots: int = 16, seed: int = 0) -> Condition:
    """Random demonstrations, drawn anew for every query.

    Raises:
        InvalidInputError: There are fewer support items than shots.
    """
    chosen_from = _check_support(support, shots)
    return Condition(name="icl", shots=shots, support=chosen_from, seed=seed)


def knn(support: Sequence[Example], *, shots: int = 16) -> Condition:
    """The demonstrations whose pictures are most similar to the query's, the nearest last.

    Raises:
        InvalidInputError: There are fewer support items than shots.

    Source: RICES, Yang et al., arXiv 2109.05014.
    """
    return Condition(name="knn-icl", shots=shots, support=_check_support(support, shots))


def steered(vectors: InContextVectors, *, strength: float = 1.0) -> Condition:
    """No demonstrations, and the backbone shifted by vectors."""
    return Condition(name="m2iv", vectors=vectors, strength=strength)


def choose_demonstrations(
    condition: Condition, examples: Sequence[Example], *, features: FeatureCache
) -> list[tuple[Example, ...]]:
    """The demonstrations of each item, first to last; never one that shows the item's picture.

    Args:
        condition: How to choose.
        examples: The items that are asked.
        features: Vision features, for similarities.
    """
    if condition.name == "icl":
        return [_random(condition, example, index) for index, example in enumerate(examples)]
    if condition.name == "knn-icl":
        return _nearest(condition, examples, features)
    return [() for _ in examples]


def _random(condition: Condition, example: Example, index: int) -> tuple[Example, ...]:
    others = [item for item in condition.support if item.image_id != example.image_id]
    generator = generator_for(condition.seed, "n-shot", index)
    count = min(condition.shots, len(others))
    chosen = generator.choice(len(others), size=count, replace=False)
    return tuple(others[int(place)] for place in chosen)


def _nearest(
    condition: Condition, examples: Sequence[Example], features: FeatureCache
) -> list[tuple[Example, ...]]:
    def directions(items: Sequence[Example]) -> Float32[np.ndarray, "items width"]:
        rows = features.summaries([item.image for item in items])
        found: Float32[np.ndarray, "items width"] = functional.normalize(rows, dim=-1).numpy()
        return found

    similarities = directions(examples) @ directions(condition.support).T
    pictures = np.array([item.image_id for item in condition.support])
    chosen = []
    for example, row in zip(examples, similarities, strict=True):
        allowed = np.where(pictures == example.image_id, -np.inf, row).astype(np.float32)
        places = nearest_context(allowed, shots=condition.shots)
        chosen.append(
            tuple(condition.support[place] for place in places if allowed[place] > -np.inf)
        )
    return chosen
