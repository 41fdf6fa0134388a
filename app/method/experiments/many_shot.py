"""More demonstrations than a training takes: a vector a chunk, combined by several rules.

Knows trained parts and rules; which rule wins is for the table to show, the best part alone beside
them.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.core.errors import InvalidInputError
from app.method.adaptation.answering import encode_parts, measure, plain
from app.method.adaptation.fitting import Leaves, Recipe, fit, true_answers
from app.method.backbone.prompts import EncodedBatch
from app.method.evaluation.conditions import Applied
from app.method.experiments.trial import Trial
from app.method.steering.composition import combine, loss_weighted_mean, mean
from app.method.steering.injection import inject
from app.method.steering.vectors import InContextVectors
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train

RULES: Final = ("best", "mean", "weighted", "learned")
FEWEST: Final = 8
_RATE: Final = 0.1
_STEPS: Final = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Combined:
    """What a rule made of the parts.

    Attributes:
        vectors: The combination, or the best part.
        seconds: Wall time of training the parts and combining them.
        weights: Of the parts.
    """

    vectors: InContextVectors
    seconds: float
    weights: tuple[float, ...]


def combine_chunks(trial: Trial, *, rule: str, size: int) -> Combined:
    """Vectors of the trial's items, trained in chunks of at most this many.

    Args:
        trial: Items, validation items and seed; parts that it trained before are taken.
        rule: `best` takes the part that validation likes best, `mean` the mean of the shifts,
            `weighted` the mean weighted by the softmax of minus the validation losses, `learned`
            convex weights from a hundred steps on the items.
        size: Items of a chunk.

    Raises:
        InvalidInputError: The chunks are too small to train on.
    """
    began = time.monotonic()
    parts, earlier = _train_parts(trial, size)
    problem = trial.problem()
    held = encode_parts(problem, plain(trial.validation))
    scores = [measure(problem, held, _steering(trial, part.shift())) for part in parts]
    if rule == "best":
        best = max(range(len(parts)), key=lambda place: scores[place])
        weights = [float(place == best) for place in range(len(parts))]
        vectors = parts[best]
    elif rule == "mean":
        weights = [1 / len(parts)] * len(parts)
        vectors = mean(parts)
    elif rule == "weighted":
        losses = [-score.gain for score in scores]
        weights = (-torch.tensor(losses, dtype=torch.float64)).softmax(0).tolist()
        vectors = loss_weighted_mean(parts, losses=losses)
    else:
        weights = _learned(trial, parts)
        vectors = combine(parts, weights=weights)
    seconds = earlier + time.monotonic() - began
    return Combined(vectors=vectors, seconds=seconds, weights=tuple(weights))


def _train_parts(trial: Trial, size: int) -> tuple[list[InContextVectors], float]:
    """The vectors of all chunks, and what an earlier call had spent on them."""
    if size < FEWEST:
        raise InvalidInputError(f"Chunks are too small: wanted at least {FEWEST}, found {size}")
    if size in trial.chunks:
        return trial.chunks[size]
    began = time.monotonic()
    starts = list(range(0, len(trial.items), size))
    if len(starts) > 1 and len(trial.items) - starts[-1] < FEWEST:
        # Too few items are left for a chunk of their own.
        starts.pop()
    ends = [*starts[1:], len(trial.items)]
    config = TrainingConfig(seed=trial.seed)
    parts = [
        train(trial.backbone, trial.items[start:end], config, features=trial.features).vectors
        for start, end in zip(starts, ends, strict=True)
    ]
    trial.chunks[size] = (parts, time.monotonic() - began)
    return parts, 0.0


def _steering(trial: Trial, shift: Float[Tensor, "layers 2 hidden"]) -> Applied:
    def applied(_batch: EncodedBatch) -> AbstractContextManager[object]:
        return inject(trial.backbone, shift[None])

    return applied


def _learned(trial: Trial, parts: Sequence[InContextVectors]) -> list[float]:
    """Convex weights that the items' answers like best, stopped by the validation items."""
    backbone = trial.backbone
    shifts = torch.stack([part.shift() for part in parts]).detach().to(backbone.device)

    def mixed(leaves: Leaves) -> Float[Tensor, "layers 2 hidden"]:
        return torch.einsum("p,plbh->lbh", leaves["scores"].softmax(0), shifts)

    recipe = Recipe(
        start=lambda: {"scores": torch.zeros(len(parts), device=backbone.device)},
        applied=lambda leaves: _steering(trial, mixed(leaves)),
        loss=true_answers(backbone),
        rates=(_RATE,),
        factors={},
    )
    weights: list[float] = (
        fit(replace(trial.problem(), max_steps=_STEPS), recipe).leaves["scores"].softmax(0).tolist()
    )
    return weights
