"""Stored vectors beside their opponents on labelled items that they have not seen."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

from app.core.errors import InvalidDatasetError
from app.core.jobs import ALWAYS, BALANCED_SHOTS, Method
from app.method.adaptation.problem import Problem, answer_steps
from app.method.backbone.examples import Episode, Example
from app.method.evaluation.conditions import (
    Condition,
    InContext,
    choose_demonstrations,
    in_context,
    nearest_demonstrations,
)
from app.method.evaluation.metrics import majority_hits, text_hits
from app.method.steering.vectors import InContextVectors
from app.method.steps import OffDevice
from app.method.training.answers import AnswerScore
from app.method.training.distillation import embed_all
from app.method.training.progress import Reporter, Steps
from app.method.training.selection.comparison import Comparison, compare_answers

Result = TypeVar("Result")
Contexts = list[tuple[Example, ...]]


def measurement_steps(
    problem: Problem,
    queries: Sequence[Example],
    vectors: InContextVectors,
    *,
    methods: Sequence[Method],
    reporter: Reporter,
) -> Steps[Comparison]:
    """Vectors at strength 1 beside the methods that are named, and those of `ALWAYS`.

    The problem's items are what demonstrations and answers to copy come from, never an item of the
    picture that is asked about; there may be fewer than shots.

    Yields:
        Progress, or None after every pass; the backbone is unsteered then.

    Raises:
        InvalidDatasetError: An item has nothing of another picture to demonstrate with.
        ContextOverflowError: A prompt with its demonstrations is too long.
        JobCancelledError: The reporter was asked to stop.
    """
    wanted = tuple(dict.fromkeys((*ALWAYS, *methods)))
    contexts = yield from _contexts(problem, queries, wanted, reporter=reporter)
    generated = [name for name in wanted if name not in {"majority", "nearest_copy"}]
    reporter.begin("evaluate", len(generated) * len(queries))
    answers: dict[str, list[AnswerScore]] = {}
    spent: dict[str, float] = {}
    for name in generated:
        shown = contexts.get(name, [()] * len(queries))
        episodes = [
            Episode(query=item, context=one) for item, one in zip(queries, shown, strict=True)
        ]
        applied = vectors if name == "m2iv" else None
        steps = answer_steps(problem, episodes, applied, reporter=reporter)
        answers[name], spent[name] = yield from _timed(steps)
    true = [item.answer for item in queries]
    trivial = {"majority": majority_hits([item.answer for item in problem.items], true)}
    if "nearest_copy" in contexts:
        copied = [one[-1].answer for one in contexts["nearest_copy"]]
        trivial["nearest_copy"] = text_hits(copied, true)
    num_labels = len(problem.items)
    shots = min(problem.shots, num_labels)
    labels = {"zero_shot": 0, "m2iv": 0, "icl": shots}
    labels["icl_balanced"] = min(BALANCED_SHOTS, num_labels)
    comparison = compare_answers(answers, trivial, labels=labels, other_labels=num_labels)
    return replace(
        comparison,
        shots=shots,
        milliseconds={
            name: 1000 * spent.get(name, 0.0) / len(queries) for name in comparison.conditions
        },
        seconds=reporter.seconds,
    )


def _contexts(
    problem: Problem, queries: Sequence[Example], methods: Sequence[Method], *, reporter: Reporter
) -> Steps[dict[Method, Contexts]]:
    """What each method that reads labelled items shows before each item."""
    most = len(problem.items)
    shots = min(problem.shots, most)
    counts: dict[InContext, int] = {
        "icl": shots,
        "icl_balanced": min(BALANCED_SHOTS, most),
        "knn_icl": shots,
        "nearest_copy": 1,
    }
    chosen = {
        name: in_context(name, problem.items, shots=count, seed=problem.seed)
        for name, count in counts.items()
        if name in methods
    }
    seen = [*queries, *(problem.items if chosen else ())]
    rows = yield from embed_all(problem.features, seen, reporter=reporter)

    def shown_by(condition: Condition) -> Contexts:
        if condition.name in {"knn_icl", "nearest_copy"}:
            similarities = rows[: len(queries)] @ rows[len(queries) :].T
            return nearest_demonstrations(condition, queries, similarities)
        return choose_demonstrations(condition, queries, problem.features)

    found: dict[Method, Contexts] = yield OffDevice(
        lambda: {name: shown_by(condition) for name, condition in chosen.items()}
    )
    for name, shown in found.items():
        if not all(shown):
            raise InvalidDatasetError(
                f"Nothing to demonstrate with: wanted items of another picture than the one that "
                f"is asked about, found none for {sum(not one for one in shown)} items",
                details={"method": name},
            )
    return found


def _timed(steps: Steps[Result]) -> Steps[tuple[Result, float]]:
    """What the steps return, and the seconds that they had the device."""
    spent = 0.0
    with closing(steps):
        answer: Any = None
        while True:
            began = time.perf_counter()
            try:
                event = steps.send(answer)
            except StopIteration as end:
                return end.value, spent + time.perf_counter() - began
            spent += time.perf_counter() - began
            answer = yield event
