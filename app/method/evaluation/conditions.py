"""Under which condition a backbone is asked: with what before the query, and with which vectors."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from app.core.errors import InvalidInputError
from app.core.jobs import BALANCED_SHOTS
from app.method.backbone.embedding import embed
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.backbone.randomness import generator_for
from app.method.evaluation.neighbours import balanced_context, nearest_context
from app.method.steering.vectors import InContextVectors

Applied: TypeAlias = Callable[[EncodedBatch], AbstractContextManager[object]]
"""Changes the backbone for a batch within the block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """How every item of an evaluation is asked.

    Made by `zero_shot`, `n_shot`, `knn`, `given`, `steered` and `adapted`.

    Attributes:
        name: `zero_shot`, `icl`, `icl_balanced`, `knn_icl`, `nearest_copy`, `m2iv`, or that of
            another change of the backbone.
        num_labels: Labelled items that an answer depends on; None where nobody knows.
        contexts: The demonstrations of each item that is asked, where they are given with it.
    """

    name: str
    shots: int = 0
    support: tuple[Example, ...] = ()
    seed: int = 0
    vectors: InContextVectors | None = None
    strength: float = 1.0
    applied: Applied | None = None
    num_labels: int | None = 0
    contexts: tuple[tuple[Example, ...], ...] | None = None


def zero_shot() -> Condition:
    """No demonstrations and no vectors."""
    return Condition(name="zero_shot")


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
    return Condition(name="icl", shots=shots, support=chosen_from, seed=seed, num_labels=shots)


def balanced(
    support: Sequence[Example], *, shots: int = BALANCED_SHOTS, seed: int = 0
) -> Condition:
    """Random demonstrations of as many different answers as possible, anew for every query.

    Raises:
        InvalidInputError: There are fewer support items than shots.
    """
    chosen_from = _check_support(support, shots)
    return Condition(
        name="icl_balanced", shots=shots, support=chosen_from, seed=seed, num_labels=shots
    )


def nearest_copy(support: Sequence[Example]) -> Condition:
    """No backbone at all: the answer of the item nearest in picture and question.

    Raises:
        InvalidInputError: There is no support item.
    """
    chosen_from = _check_support(support, 1)
    return Condition(name="nearest_copy", shots=1, support=chosen_from, num_labels=len(chosen_from))


def knn(support: Sequence[Example], *, shots: int = 16) -> Condition:
    """The demonstrations nearest to the query in picture and question, the nearest last.

    Raises:
        InvalidInputError: There are fewer support items than shots.

    Source: RICES, Yang et al., arXiv 2109.05014.
    """
    chosen_from = _check_support(support, shots)
    return Condition(name="knn_icl", shots=shots, support=chosen_from, num_labels=len(chosen_from))


def steered(
    vectors: InContextVectors, *, strength: float = 1.0, num_labels: int | None = None
) -> Condition:
    """No demonstrations, and the backbone shifted by vectors."""
    return Condition(name="m2iv", vectors=vectors, strength=strength, num_labels=num_labels)


def adapted(name: str, applied: Applied, *, num_labels: int | None = None) -> Condition:
    """No demonstrations, and the backbone changed in another way than by vectors."""
    return Condition(name=name, applied=applied, num_labels=num_labels)


def given(contexts: Sequence[Sequence[Example]], *, shots: int) -> Condition:
    """Demonstrations that come with each item, in the order of the items."""
    return Condition(
        name="icl",
        shots=shots,
        support=tuple(item for context in contexts for item in context),
        num_labels=max((len(context) for context in contexts), default=0),
        contexts=tuple(map(tuple, contexts)),
    )


def choose_demonstrations(
    condition: Condition, examples: Sequence[Example], *, backbone: Backbone, features: FeatureCache
) -> list[tuple[Example, ...]]:
    """The demonstrations of each item, first to last; never one that shows the item's picture."""
    if condition.contexts is not None:
        return list(condition.contexts)
    if condition.name == "icl":
        return [_random(condition, example, index) for index, example in enumerate(examples)]
    if condition.name == "icl_balanced":
        return [_balanced(condition, example, index) for index, example in enumerate(examples)]
    if condition.name in {"knn_icl", "nearest_copy"}:
        return _nearest(condition, examples, backbone=backbone, features=features)
    return [() for _ in examples]


def _random(condition: Condition, example: Example, index: int) -> tuple[Example, ...]:
    others = [item for item in condition.support if item.image_id != example.image_id]
    generator = generator_for(condition.seed, "n-shot", index)
    count = min(condition.shots, len(others))
    chosen = generator.choice(len(others), size=count, replace=False)
    return tuple(others[int(place)] for place in chosen)


def _balanced(condition: Condition, example: Example, index: int) -> tuple[Example, ...]:
    others = [item for item in condition.support if item.image_id != example.image_id]
    places = balanced_context(
        [item.answer for item in others], shots=condition.shots, query=index, seed=condition.seed
    )
    return tuple(others[place] for place in places)


def _nearest(
    condition: Condition, examples: Sequence[Example], *, backbone: Backbone, features: FeatureCache
) -> list[tuple[Example, ...]]:
    def rows(items: Sequence[Example]) -> Float32[np.ndarray, "items width"]:
        images = [item.image for item in items]
        return embed(backbone, images, [item.question for item in items], features=features)

    similarities = rows(examples) @ rows(condition.support).T
    return nearest_demonstrations(condition, examples, similarities)


def nearest_demonstrations(
    condition: Condition,
    examples: Sequence[Example],
    similarities: Float32[np.ndarray, "items support"],
) -> list[tuple[Example, ...]]:
    """The nearest demonstrations of each item, the nearest last; never one with its picture."""
    pictures = np.array([item.image_id for item in condition.support])
    chosen = []
    for example, row in zip(examples, similarities, strict=True):
        allowed = np.where(pictures == example.image_id, -np.inf, row).astype(np.float32)
        places = nearest_context(allowed, shots=condition.shots)
        chosen.append(
            tuple(condition.support[place] for place in places if allowed[place] > -np.inf)
        )
    return chosen
