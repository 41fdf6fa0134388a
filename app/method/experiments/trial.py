"""What one trial has to work with: a task, some of its labelled items, a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.core.errors import ContextOverflowError
from app.method.adaptation.problem import Measured, Problem, encode_parts, measure
from app.method.backbone.examples import Example, Lesson
from app.method.evaluation.conditions import Condition, InContext, choose_demonstrations, in_context
from app.method.experiments.suite import Task
from app.method.steering.vectors import InContextVectors

KINDS: Final[tuple[InContext, ...]] = ("icl", "icl_balanced", "knn_icl")
"""Ways to choose demonstrations, by the names of methods."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A task with what may be used for it.

    Attributes:
        problem: What methods may use of it.
        measured: How in-context learning did on the validation items, by kind and shots; None
            where a prompt is too long.
        chunks: Vectors of chunks of so many items, with the seconds that they took.
    """

    problem: Problem
    task: Task
    test: Sequence[Example]
    shots: Sequence[int]
    measured: dict[tuple[str, int], Measured | None] = field(default_factory=dict)
    chunks: dict[int, tuple[list[InContextVectors], float]] = field(default_factory=dict)

    def in_context(self, kind: InContext, shots: int) -> Condition:
        """In-context learning of a kind; as many demonstrations as there are items at most."""
        items = self.problem.items
        return in_context(kind, items, shots=min(shots, len(items)), seed=self.problem.seed)

    def validate(self, kind: InContext, shots: int) -> Measured | None:
        """How that does on the validation items; None where a prompt is too long."""
        key = (kind, shots)
        if key not in self.measured:
            try:
                self.measured[key] = self._validate(kind, shots)
            except ContextOverflowError:
                self.measured[key] = None
        return self.measured[key]

    def _validate(self, kind: InContext, shots: int) -> Measured:
        problem = self.problem
        features, asked = problem.features, problem.validation
        features.prepare([picture for item in problem.items for picture in item.pictures])
        condition = self.in_context(kind, shots)
        chosen = choose_demonstrations(
            condition, asked, backbone=problem.backbone, features=features
        )
        lessons = [
            Lesson(query=query, context=context)
            for query, context in zip(asked, chosen, strict=True)
        ]
        return measure(problem, encode_parts(problem, lessons))

    def best_in_context(self, most: int) -> tuple[InContext, int]:
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
