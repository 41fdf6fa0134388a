"""Under which condition a backbone is asked: with what before the query, and with which vectors."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float32

from app.core.errors import InvalidInputError
from app.method.backbone.embedding import embed
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.prompts import EncodedBatch
from app.method.backbone.randomness import generator_for
from app.method.steering.vectors import InContextVectors

InContext: TypeAlias = Literal["icl", "icl_balanced", "knn_icl", "nearest_copy"]
Applied: TypeAlias = Callable[[EncodedBatch], AbstractContextManager[object]]
"""Changes the backbone for a batch within the block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """How every item of an evaluation is asked.

    Mostly made by `zero_shot`, `in_context`, `fixed_contexts` and `steered`.

    Attributes:
        name: `zero_shot`, `icl`, `icl_balanced`, `knn_icl`, `nearest_copy`, `m2iv`, or that of
            another change of the backbone, which `applied` makes.
        num_labels: Labelled items that an answer depends on; None where nobody knows.
        contexts: The demonstrations of each item that is asked, where they are given with it.
        translate: Makes the answer that counts of what the backbone said.
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
    translate: Callable[[str], str] = str


def zero_shot() -> Condition:
    """No demonstrations and no vectors."""
    return Condition(name="zero_shot")


def in_context(
    name: InContext, support: Sequence[Example], *, shots: int = 16, seed: int = 0
) -> Condition:
    """Demonstrations that are chosen for every query, or the answer of the nearest one.

    Args:
        name: `icl` draws them at random; `icl_balanced` draws as many different answers as
            possible; `knn_icl` takes the nearest in picture and question, the nearest last;
            `nearest_copy` asks no backbone at all and answers as the nearest item.
        support: What they are chosen from.
        shots: How many; `nearest_copy` wants 1.
        seed: Of the draws.

    Raises:
        InvalidInputError: There are fewer support items than shots.

    Source: the nearest ones are RICES, Yang et al., arXiv 2109.05014.
    """
    if not 1 <= shots <= len(support):
        raise InvalidInputError(
            f"Wanted at least one shot and as many support items, found {shots} shots and "
            f"{len(support)} items",
            details={"shots": shots, "support": len(support)},
        )
    num_labels = shots if name in {"icl", "icl_balanced"} else len(support)
    return Condition(
        name=name, shots=shots, support=tuple(support), seed=seed, num_labels=num_labels
    )


def steered(
    vectors: InContextVectors, *, strength: float = 1.0, num_labels: int | None = None
) -> Condition:
    """No demonstrations, and the backbone shifted by vectors."""
    return Condition(name="m2iv", vectors=vectors, strength=strength, num_labels=num_labels)


def fixed_contexts(contexts: Sequence[Sequence[Example]], *, shots: int) -> Condition:
    """Demonstrations that come with each item, in the order of the items."""
    return Condition(
        name="icl",
        shots=shots,
        support=tuple(item for context in contexts for item in context),
        num_labels=max((len(context) for context in contexts), default=0),
        contexts=tuple(map(tuple, contexts)),
    )


def choose_demonstrations(
    condition: Condition, examples: Sequence[Example], features: FeatureCache
) -> list[tuple[Example, ...]]:
    """The demonstrations of each item, first to last; never one that shows the item's picture."""
    if condition.contexts is not None:
        return list(condition.contexts)
    if condition.name in {"icl", "icl_balanced"}:
        # Once: it is counted among what all annotators of an item said.
        answers = [item.answer for item in condition.support]
        return [
            _drawn(condition, example, index, answers=answers)
            for index, example in enumerate(examples)
        ]
    if condition.name in {"knn_icl", "nearest_copy"}:
        return _nearest(condition, examples, features)
    return [() for _ in examples]


def _drawn(
    condition: Condition, example: Example, index: int, *, answers: Sequence[str]
) -> tuple[Example, ...]:
    others = [
        place for place, item in enumerate(condition.support) if item.image_id != example.image_id
    ]
    if condition.name == "icl":
        generator = generator_for(condition.seed, "n-shot", index)
        count = min(condition.shots, len(others))
        chosen = tuple(generator.choice(len(others), size=count, replace=False).tolist())
    else:
        said = [answers[place] for place in others]
        chosen = balanced_context(said, shots=condition.shots, query=index, seed=condition.seed)
    return tuple(condition.support[others[place]] for place in chosen)


def _nearest(
    condition: Condition, examples: Sequence[Example], features: FeatureCache
) -> list[tuple[Example, ...]]:
    def rows(items: Sequence[Example]) -> Float32[np.ndarray, "items width"]:
        images = [item.image for item in items]
        return embed(features, images, [item.question for item in items])

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
