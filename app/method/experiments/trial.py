"""What one trial has to work with: a task, some of its labelled items, a seed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.core.errors import ContextOverflowError, InvalidInputError
from app.core.jobs import Rule
from app.method.adaptation.combination import Combined, combine_steps
from app.method.adaptation.problem import Measured, Problem, encode_parts, measure
from app.method.backbone.examples import Episode, Example
from app.method.evaluation.conditions import Condition, InContext, choose_demonstrations, in_context
from app.method.evaluation.report import ConditionReport, evaluate
from app.method.experiments.suite import Task
from app.method.steering.vectors import InContextVectors
from app.method.steps import finish
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train

FEWEST: Final = 8
"""Items of a chunk."""
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

    def ask(self, examples: Sequence[Example], condition: Condition) -> ConditionReport:
        """What the backbone answers under a condition, scored as the task says."""
        return evaluate(
            self.problem.backbone,
            examples,
            condition=condition,
            scorer=self.task.scorer,
            max_new_tokens=self.task.max_new_tokens,
            features=self.problem.features,
        )

    def validate(self, kind: InContext, shots: int) -> Measured | None:
        """How that does on the validation items; None where a prompt is too long."""
        key = (kind, shots)
        if key not in self.measured:
            problem = self.problem
            features, queries = problem.features, problem.validation
            features.prepare([picture for item in problem.items for picture in item.pictures])
            chosen = choose_demonstrations(self.in_context(kind, shots), queries, features)
            episodes = [
                Episode(query=query, context=context)
                for query, context in zip(queries, chosen, strict=True)
            ]
            try:
                self.measured[key] = measure(problem, encode_parts(problem, episodes))
            except ContextOverflowError:
                self.measured[key] = None
        return self.measured[key]

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


def combine_chunks(trial: Trial, *, rule: Rule, size: int) -> tuple[Combined, float]:
    """What a rule makes of vectors trained on chunks of the trial's items, and the seconds of it.

    Parts that the trial trained before are taken.

    Raises:
        InvalidInputError: The chunks are too small to train on.
    """
    parts, seconds = _train_parts(trial, size)
    began = time.monotonic()
    combined = finish(combine_steps(trial.problem, parts, rule=rule))
    return combined, seconds + time.monotonic() - began


def _train_parts(trial: Trial, size: int) -> tuple[list[InContextVectors], float]:
    """The vectors of all chunks, and the seconds of their training."""
    if size < FEWEST:
        raise InvalidInputError(f"Chunks are too small: wanted at least {FEWEST}, found {size}")
    if size in trial.chunks:
        return trial.chunks[size]
    began = time.monotonic()
    problem = trial.problem
    items = problem.items
    starts = list(range(0, len(items), size))
    if len(starts) > 1 and len(items) - starts[-1] < FEWEST:
        # Too few items are left for a chunk of their own.
        starts.pop()
    ends = [*starts[1:], len(items)]
    config = TrainingConfig(seed=problem.seed)
    parts = [
        train(problem.backbone, items[start:end], config, features=problem.features).vectors
        for start, end in zip(starts, ends, strict=True)
    ]
    trial.chunks[size] = (parts, time.monotonic() - began)
    return trial.chunks[size]
