"""Gradient steps on a few tensors over labelled items, judged by validation items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from app.core.errors import JSON
from app.method.adaptation.problem import (
    Adaptation,
    Measured,
    Part,
    Problem,
    encode_steps,
    measure_steps,
    without_context,
)
from app.method.backbone.prompts import EncodedBatch
from app.method.backbone.randomness import generator_for
from app.method.evaluation.conditions import Applied
from app.method.steps import finish
from app.method.training.answers import answer_logits
from app.method.training.augmentation import augmented_example
from app.method.training.losses import supervision
from app.method.training.progress import Steps

_BATCH_SIZE: Final = 16
_CLIP_NORM: Final = 1.0
_WARM_UP: Final = 0.03
"""Share of the steps in which the rate rises; from there it falls as a cosine to 0."""
_DECAY: Final = 1e-3
_EVALUATE_EVERY: Final = 20

Leaves: TypeAlias = dict[str, Tensor]
Loss: TypeAlias = Callable[[Sequence[int], EncodedBatch], Float[Tensor, ""]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """What is fitted and how.

    Attributes:
        start: Makes the tensors to learn by name, drawn from the problem's seed at every call.
        rate: The learning rate at its peak, unless the problem has one.
        loss: Of a batch, read within that change: which items it holds, and the batch. None is the
            loss of the true answers alone.
    """

    start: Callable[[torch.Generator], Leaves]
    applied: Callable[[Leaves], Applied]
    rate: float
    loss: Loss | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What came of it.

    Attributes:
        steps: When they were reached; 0 keeps the start.
    """

    leaves: Leaves
    measured: Measured
    rate: float
    steps: int


def fit_adaptation(problem: Problem, recipe: Recipe, *, kind: str, **notes: JSON) -> Adaptation:
    """The change that the best tensors stand for, with these notes and what was chosen."""
    found = finish(fit_steps(problem, recipe))
    return Adaptation(
        kind=kind,
        num_parameters=sum(leaf.numel() for leaf in found.leaves.values()),
        applied=recipe.applied(found.leaves),
        notes={"rate": found.rate, "steps": found.steps, **notes},
    )


def fit_steps(problem: Problem, recipe: Recipe) -> Steps[Fitted]:
    """The tensors that validation items did best with, at the start or on the way.

    Yields:
        None after every pass; the backbone is as it was then.
    """
    from transformers import get_cosine_schedule_with_warmup  # noqa: PLC0415 - brings PEFT

    def true_answers(_places: Sequence[int], batch: EncodedBatch) -> Float[Tensor, ""]:
        return supervision(answer_logits(problem.backbone, batch), batch.targets).mean()

    held = yield from encode_steps(problem, without_context(problem.validation))
    rate = recipe.rate if problem.rate is None else problem.rate
    num_steps = problem.max_steps
    loss_of = recipe.loss or true_answers
    start = recipe.start(torch.Generator().manual_seed(problem.seed))
    leaves = {
        name: leaf.to(problem.backbone.device).requires_grad_() for name, leaf in start.items()
    }
    optimizer = torch.optim.AdamW(leaves.values(), lr=rate, weight_decay=_DECAY)
    schedule = get_cosine_schedule_with_warmup(
        optimizer, num_warmup_steps=round(_WARM_UP * num_steps), num_training_steps=num_steps
    )
    first = yield from measure_steps(problem, held, recipe.applied(leaves))
    best = Fitted(leaves=_copied(leaves), measured=first, rate=rate, steps=0)
    for step in range(num_steps):
        optimizer.zero_grad(set_to_none=True)
        drawn = yield from _draw(problem, step)
        for places, batch in drawn:
            with recipe.applied(leaves)(batch):
                loss = loss_of(places, batch)
            torch.autograd.backward(loss)
            yield None
        torch.nn.utils.clip_grad_norm_(leaves.values(), _CLIP_NORM)
        optimizer.step()
        schedule.step()
        if (step + 1) % _EVALUATE_EVERY and step + 1 != num_steps:
            continue
        measured = yield from measure_steps(problem, held, recipe.applied(leaves))
        if measured > best.measured:
            best = Fitted(leaves=_copied(leaves), measured=measured, rate=rate, steps=step + 1)
    return best


def _draw(problem: Problem, step: int) -> Steps[list[Part]]:
    """The items of one step in passes that fit the budget; epochs take each item once."""
    size = min(_BATCH_SIZE, len(problem.items))
    per_epoch = len(problem.items) // size
    epoch, place = divmod(step, per_epoch)
    order = generator_for(problem.seed, "fit", epoch).permutation(len(problem.items))
    chosen = [int(item) for item in order[place * size : (place + 1) * size]]
    view = epoch % (1 + problem.augmented_views)
    shown = [augmented_example(problem.items[item], view) for item in chosen]
    parts = yield from encode_steps(problem, without_context(shown))
    return [([chosen[place] for place in places], batch) for places, batch in parts]


def _copied(leaves: Leaves) -> Leaves:
    return {name: leaf.detach().clone() for name, leaf in leaves.items()}
