"""Trained vectors made into one by a rule that looks at labelled items, and what it is worth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from app.core.errors import InvalidDatasetError
from app.core.jobs import Rule
from app.method.adaptation.fitting import Leaves, Recipe, fit_steps
from app.method.adaptation.problem import (
    Problem,
    answer_steps,
    encode_steps,
    measure_steps,
    without_context,
)
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.evaluation.conditions import Applied
from app.method.evaluation.metrics import majority_hits
from app.method.steering.injection import inject
from app.method.steering.vectors import InContextVectors
from app.method.steps import relayed
from app.method.training.answers import AnswerScore
from app.method.training.demonstrations import hold_out
from app.method.training.progress import Event, Reporter, Steps
from app.method.training.prompts import prepare_all
from app.method.training.selection.comparison import (
    Comparison,
    ConditionScore,
    compare_answers,
    score_condition,
)

FEWEST_ITEMS: Final = 16
_RATE: Final = 0.1
_STEPS: Final = 100
_MOST_MEASURED: Final = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Combined:
    """What a rule made of the parts."""

    vectors: InContextVectors
    weights: tuple[float, ...]
    best: int


CombinationResult: TypeAlias = tuple[Combined, Comparison, list[ConditionScore]]
"""A combination, how it does on items that chose nothing, and how each part does."""


def combine_steps(
    problem: Problem, parts: Sequence[InContextVectors], *, rule: Rule
) -> Steps[Combined]:
    """The parts made into one.

    Args:
        problem: Items to learn weights from, and validation items.
        parts: At least one, of this backbone.
        rule: `best` takes the part that validation likes best, `mean` the mean of the shifts,
            `weighted` the mean weighted by the softmax of minus the validation losses, `learned`
            convex weights from a hundred steps on the items.

    Yields:
        None after every pass; the backbone is unsteered then.
    """
    held = yield from encode_steps(problem, without_context(problem.validation))
    scores = []
    for part in parts:
        applied = _steering(problem.backbone, part.shift())
        scores.append((yield from measure_steps(problem, held, applied)))
    best = max(range(len(parts)), key=lambda place: scores[place])
    if rule == "best":
        weights = [float(place == best) for place in range(len(parts))]
    elif rule == "mean":
        weights = [1 / len(parts)] * len(parts)
    elif rule == "weighted":
        gains = torch.tensor([gain for _, gain in scores], dtype=torch.float64)
        weights = gains.softmax(0).tolist()
    else:
        weights = yield from _learned(problem, parts)
    vectors = parts[best] if rule == "best" else InContextVectors.summed(parts, weights=weights)
    return Combined(vectors=vectors, weights=tuple(weights), best=best)


def combination_steps(
    problem: Problem,
    parts: Sequence[InContextVectors],
    *,
    rule: Rule,
    reporter: Reporter,
) -> Steps[CombinationResult]:
    """A combination beside its best part, on half of the items, which chose nothing.

    The problem's items are split here by their pictures, its validation items are not used; there
    are at least two parts of its backbone, none of which was trained on the items.

    Yields:
        Progress, or None after every pass; the backbone is unsteered then.

    Returns:
        The comparison is of `m2iv` (the combination), `best_part`, `zero_shot` and `majority`.

    Raises:
        InvalidDatasetError: There are too few items.
        JobCancelledError: The reporter was asked to stop.
    """
    items = problem.items
    chosen, measured = _halves(items, seed=problem.seed)
    pictures = [picture for item in items for picture in item.pictures]
    yield from prepare_all(pictures, features=problem.features, reporter=reporter)

    def or_stop(event: Event) -> Event:
        reporter.stop_if_asked()
        return event

    making = combine_steps(_roles(problem, chosen, rule=rule), parts, rule=rule)
    combined: Combined = yield from relayed(making, or_stop)
    episodes = without_context(measured)
    candidates = {"zero_shot": None, "m2iv": combined.vectors}
    candidates |= {str(place): part for place, part in enumerate(parts)}
    reporter.begin("evaluate", len(candidates) * len(episodes))
    answers: dict[str, list[AnswerScore]] = {}
    for name, vectors in candidates.items():
        answers[name] = yield from answer_steps(problem, episodes, vectors, reporter=reporter)
    found = [answers.pop(str(place)) for place in range(len(parts))]
    seen = [item.answer for item in chosen]
    comparison = compare_answers(
        {"m2iv": answers["m2iv"], "best_part": found[combined.best], **answers},
        {"majority": majority_hits(seen, [item.answer for item in measured])},
        labels={"zero_shot": 0},
        other_labels=len(chosen),
        demonstrated="best_part",
    )
    each = [score_condition([one.is_right for one in part], part, 0) for part in found]
    return combined, replace(comparison, seconds=reporter.seconds), each


def _halves(items: Sequence[Example], *, seed: int) -> tuple[list[Example], list[Example]]:
    if len(items) < FEWEST_ITEMS or len({item.image_id for item in items}) < FEWEST_ITEMS // 2:
        raise InvalidDatasetError(
            f"Too few items to choose and to measure with: wanted at least {FEWEST_ITEMS} that no "
            f"part was trained on, with {FEWEST_ITEMS // 2} pictures, found {len(items)}",
            details={"wanted": FEWEST_ITEMS, "found": len(items)},
        )
    chosen, measured = hold_out(items, fraction=0.5, fewest=0, most=_MOST_MEASURED, seed=seed)
    return [items[place] for place in chosen], [items[place] for place in measured]


def _roles(problem: Problem, chosen: Sequence[Example], *, rule: Rule) -> Problem:
    """Weights that are learned need items of their own to learn from."""
    if rule != "learned":
        return replace(problem, items=chosen, validation=chosen)
    learnt, validation = hold_out(
        chosen, fraction=0.3, fewest=0, most=len(chosen), seed=problem.seed
    )
    return replace(
        problem,
        items=[chosen[place] for place in learnt],
        validation=[chosen[place] for place in validation],
    )


def _steering(backbone: Backbone, shift: Float[Tensor, "layers 2 hidden"]) -> Applied:
    return lambda _batch: inject(backbone.model, shift[None])


def _learned(problem: Problem, parts: Sequence[InContextVectors]) -> Steps[list[float]]:
    """Convex weights fitted to the items; of all on the way what validation does best with."""
    backbone = problem.backbone
    shifts = torch.stack([part.shift().detach() for part in parts]).to(backbone.device)

    def mixed(leaves: Leaves) -> Float[Tensor, "layers 2 hidden"]:
        return torch.einsum("p,plbh->lbh", leaves["scores"].softmax(0), shifts)

    recipe = Recipe(
        start=lambda _generator: {"scores": torch.zeros(len(parts))},
        applied=lambda leaves: _steering(backbone, mixed(leaves)),
        rate=_RATE,
    )
    fitted = yield from fit_steps(replace(problem, max_steps=_STEPS), recipe)
    weights: list[float] = fitted.leaves["scores"].softmax(0).tolist()
    return weights
