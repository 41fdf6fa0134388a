"""What every way of changing a frozen backbone gets, and how well labelled items are answered."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from app.core.errors import JSON
from app.method.backbone.examples import Episode, Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.backbone.randomness import generator_for
from app.method.evaluation.conditions import Applied
from app.method.steering.vectors import InContextVectors
from app.method.steps import finish
from app.method.training.answers import AnswerScore, answer_episodes, answer_logits, score_answers
from app.method.training.progress import Reporter, Steps
from app.method.training.prompts import run_batches

Part: TypeAlias = tuple[Sequence[int], EncodedBatch]
"""Places of queries that go through the backbone together, and their batch."""
Measured: TypeAlias = tuple[int, float]
"""Right answers, and minus the mean loss of the true ones; the larger, the better."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """What a method may use.

    Attributes:
        validation: Labelled items that only choose: layers, rates, when to stop.
        shots: Demonstrations before a query wherever a method reads some; fewer items are all
            taken.
        max_steps: Optimiser steps of whatever is fitted by gradients.
        rate: Its learning rate at its peak; None is the method's own.
        augmented_views: Views of each picture (`augmented`) that whatever is fitted by gradients
            learns from in turn, an epoch each, beside the picture.
    """

    items: Sequence[Example]
    validation: Sequence[Example]
    features: FeatureCache
    shots: int = 16
    seed: int = 0
    token_budget: int = 8192
    max_steps: int = 600
    rate: float | None = None
    augmented_views: int = 0

    @property
    def backbone(self) -> Backbone:
        """Whose answers are changed."""
        return self.features.backbone


@dataclass(frozen=True, kw_only=True, eq=False)
class Adaptation:
    """A fitted change of the backbone.

    Attributes:
        kind: What is done to it: `last-token`, `direction`, `scaled-context`, `normed-shift`,
            `gated-heads`, `low-rank`, `virtual-keys`; none is a shift that a vector could carry.
        notes: What was chosen on validation, in JSON values.
    """

    kind: str
    num_parameters: int
    applied: Applied
    notes: dict[str, JSON] = field(default_factory=dict)


def draw_contexts(problem: Problem, *, count: int, purpose: str) -> list[Episode]:
    """Queries, each once at most, with demonstrations drawn from the other items' pictures."""
    items = problem.items
    order = generator_for(problem.seed, purpose).permutation(len(items))[:count]
    found = []
    for place in order.tolist():
        query = items[place]
        others = [item for item in items if item.image_id != query.image_id]
        generator = generator_for(problem.seed, purpose, place)
        size = min(problem.shots, len(others))
        chosen = generator.choice(len(others), size=size, replace=False)
        context = tuple(others[int(index)] for index in chosen)
        found.append(Episode(query=query, context=context))
    return found


def without_context(items: Sequence[Example]) -> list[Episode]:
    """The items without demonstrations."""
    return [Episode(query=item, context=()) for item in items]


def encode_parts(
    problem: Problem, episodes: Sequence[Episode], *, with_answers: bool = True
) -> list[Part]:
    """The queries in batches that fit the budget: `encode_steps` from the first to the last."""
    return finish(encode_steps(problem, episodes, with_answers=with_answers))


def encode_steps(
    problem: Problem, episodes: Sequence[Episode], *, with_answers: bool = True
) -> Steps[list[Part]]:
    """The queries in batches that fit the budget.

    Yields:
        Work for another thread, and None after every batch.
    """
    parts: list[Part] = []
    yield from run_batches(
        problem.features,
        episodes,
        lambda places, batch: parts.append((places, batch)),
        token_budget=problem.token_budget,
        with_answers=with_answers,
    )
    return parts


def measure(problem: Problem, parts: Sequence[Part], applied: Applied | None = None) -> Measured:
    """How well the changed backbone answers: `measure_steps` from the first to the last."""
    return finish(measure_steps(problem, parts, applied))


def measure_steps(
    problem: Problem, parts: Sequence[Part], applied: Applied | None = None
) -> Steps[Measured]:
    """How well the changed backbone answers, read off one pass over prompts with answers.

    If every answer token is the most likely one where it is due, greedy decoding writes the same.

    Yields:
        None after every pass; the backbone is as it was then.
    """
    num_right, losses, rows = 0, 0.0, 0
    for _, batch in parts:
        with torch.no_grad(), nullcontext() if applied is None else applied(batch):
            logits = answer_logits(problem.backbone, batch)
        found = score_answers(problem.backbone, logits, batch)
        num_right += sum(one.is_right for one in found)
        losses += sum(one.loss for one in found)
        rows += len(found)
        yield None
    return num_right, -losses / max(1, rows)


def answer_steps(
    problem: Problem,
    episodes: Sequence[Episode],
    vectors: InContextVectors | None,
    *,
    reporter: Reporter,
) -> Steps[list[AnswerScore]]:
    """How each episode is answered with the vectors at strength 1, or without any.

    Raises:
        JobCancelledError: The reporter was asked to stop.
    """
    shifts = None if vectors is None else vectors.shift().detach().to(problem.backbone.device)[None]
    return answer_episodes(
        problem.features,
        episodes,
        token_budget=problem.token_budget,
        shifts=shifts,
        reporter=reporter,
    )


def best_on_validation(problem: Problem, changes: Sequence[Applied]) -> int:
    """The place of the change that validation items do best with, the first of equals."""
    held = encode_parts(problem, without_context(problem.validation))
    scores = [measure(problem, held, one) for one in changes]
    return scores.index(max(scores))
