"""What one trial has to work with: a task, some of its labelled items, a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.core.errors import ContextOverflowError
from app.core.jobs import Method
from app.method.adaptation.problem import Measured, Problem, encode_parts, measure
from app.method.backbone.examples import Example, Lesson
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.evaluation.conditions import (
    Condition,
    balanced,
    choose_demonstrations,
    knn,
    n_shot,
)
from app.method.experiments.suite import Task
from app.method.steering.vectors import InContextVectors

KINDS: Final[tuple[Method, ...]] = ("icl", "icl_balanced", "knn_icl")
"""Ways to choose demonstrations, by the names of methods."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A task with what may be used for it.

    Attributes:
        validation: Labelled items that only choose.
        measured: How in-context learning did on the validation items, by kind and shots; None
            where a prompt is too long.
        chunks: Vectors of chunks of so many items, with the seconds that they took.
    """

    backbone: Backbone
    features: FeatureCache
    task: Task
    items: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    seed: int
    shots: Sequence[int]
    measured: dict[tuple[str, int], Measured | None] = field(default_factory=dict)
    chunks: dict[int, tuple[list[InContextVectors], float]] = field(default_factory=dict)

    def problem(self, *, shots: int = 16) -> Problem:
        """The same as the baselines take it."""
        return Problem(
            backbone=self.backbone,
            items=self.items,
            validation=self.validation,
            features=self.features,
            shots=shots,
            seed=self.seed,
        )

    def in_context(self, kind: str, shots: int) -> Condition:
        """In-context learning of a kind; as many demonstrations as there are items at most."""
        count = min(shots, len(self.items))
        if kind == "knn_icl":
            return knn(self.items, shots=count)
        choose = n_shot if kind == "icl" else balanced
        return choose(self.items, shots=count, seed=self.seed)

    def validate(self, kind: str, shots: int) -> Measured | None:
        """How that does on the validation items; None where a prompt is too long."""
        key = (kind, shots)
        if key not in self.measured:
            try:
                self.measured[key] = self._validate(kind, shots)
            except ContextOverflowError:
                self.measured[key] = None
        return self.measured[key]

    def _validate(self, kind: str, shots: int) -> Measured:
        self.features.prepare([picture for item in self.items for picture in item.pictures])
        chosen = choose_demonstrations(
            self.in_context(kind, shots),
            self.validation,
            backbone=self.backbone,
            features=self.features,
        )
        asked = [
            Lesson(query=query, context=context)
            for query, context in zip(self.validation, chosen, strict=True)
        ]
        problem = self.problem()
        return measure(problem, encode_parts(problem, asked))

    def best_in_context(self, most: int) -> tuple[str, int]:
        """The kind and the number of demonstrations, at most `most`, that validate best."""
        found = {
            (kind, shots): score
            for kind in KINDS
            for shots in self.shots
            if shots <= most and (score := self.validate(kind, shots)) is not None
        }
        if not found:
            raise ContextOverflowError(
                f"No number of demonstrations fits the context: wanted one of {list(self.shots)} "
                f"up to {most}, found none"
            )
        return max(found, key=lambda key: found[key])
