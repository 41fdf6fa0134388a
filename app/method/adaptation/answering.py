"""Labelled items as batches with their answers, and how well they are answered."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import torch

from app.method.adaptation.adapted import Problem
from app.method.backbone.examples import Example, Lesson
from app.method.backbone.prompts import EncodedBatch
from app.method.backbone.randomness import generator_for
from app.method.evaluation.conditions import Applied
from app.method.steps import finish
from app.method.training.answers import answer_logits, rows_right
from app.method.training.losses import supervision_by_token
from app.method.training.progress import Steps
from app.method.training.prompts import run_batches

_MAX_ROWS = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Rows that go through the backbone together."""

    places: list[int]
    batch: EncodedBatch


Measured: TypeAlias = tuple[int, float]
"""Right answers, and minus the mean loss of the true ones; the larger, the better."""


def draw_contexts(problem: Problem, *, count: int, purpose: str) -> list[Lesson]:
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
        found.append(Lesson(query=query, context=context))
    return found


def plain(items: Sequence[Example]) -> list[Lesson]:
    """The items without demonstrations."""
    return [Lesson(query=item, context=()) for item in items]


def encode_parts(
    problem: Problem, asked: Sequence[Lesson], *, with_answers: bool = True
) -> list[Part]:
    """The queries in batches that fit the budget: `encode_steps` from the first to the last."""
    return finish(encode_steps(problem, asked, with_answers=with_answers))


def encode_steps(
    problem: Problem, asked: Sequence[Lesson], *, with_answers: bool = True
) -> Steps[list[Part]]:
    """The queries in batches that fit the budget.

    Yields:
        Work for another thread, and None after every batch.
    """
    parts: list[Part] = []
    yield from run_batches(
        problem.backbone,
        asked,
        lambda places, batch: parts.append(Part(places=list(places), batch=batch)),
        features=problem.features,
        token_budget=problem.token_budget,
        max_rows=_MAX_ROWS,
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
    for part in parts:
        with torch.no_grad(), nullcontext() if applied is None else applied(part.batch):
            logits = answer_logits(problem.backbone, part.batch)
        counts = [len(ids) for ids in part.batch.answer_ids]
        spans = torch.split(supervision_by_token(logits, part.batch.targets), counts)
        num_right += sum(rows_right(logits, part.batch))
        losses += sum(float(span.mean()) for span in spans)
        rows += len(counts)
        yield None
    return num_right, -losses / max(1, rows)
