"""More demonstrations than a training takes: a vector a chunk, combined by several rules."""

import time
from typing import Final

from app.core.errors import InvalidInputError
from app.core.jobs import Rule
from app.method.adaptation.combination import Combined, combine_steps
from app.method.experiments.trial import Trial
from app.method.steering.vectors import InContextVectors
from app.method.steps import finish
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train

FEWEST: Final = 8


def combine_chunks(trial: Trial, *, rule: Rule, size: int) -> tuple[Combined, float]:
    """What a rule makes of vectors trained on chunks of the trial's items, and the seconds of it.

    Parts that the trial trained before are taken.

    Raises:
        InvalidInputError: The chunks are too small to train on.
    """
    began = time.monotonic()
    parts, earlier = _train_parts(trial, size)
    combined = finish(combine_steps(trial.problem, parts, rule=rule))
    return combined, earlier + time.monotonic() - began


def _train_parts(trial: Trial, size: int) -> tuple[list[InContextVectors], float]:
    """The vectors of all chunks, and what an earlier call had spent on them."""
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
    return parts, 0.0
