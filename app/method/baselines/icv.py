"""ICV: the main direction between states with and without the answer, after every MLP.

Source: Liu et al. (2024), In-context vectors, arXiv 2311.06668.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from app.method.adaptation.edits import (
    Edit,
    adaptable_sites,
    edit_outputs,
    last_tokens,
    outputs_at,
)
from app.method.adaptation.problem import (
    Adaptation,
    Problem,
    best_on_validation,
    encode_parts,
    without_context,
)
from app.method.backbone.randomness import generator_for
from app.method.evaluation.conditions import Applied

_MOST_PAIRS: Final = 64
STRENGTHS: Final = (0.03, 0.1, 0.3, 1.0, 3.0)
"""The paper's 0.1 and its neighbours; validation items choose."""


def fit(problem: Problem) -> Adaptation:
    """The direction at the strength that validation items do best with."""
    direction = main_direction(problem)
    changes = [_steering(problem, direction, one) for one in STRENGTHS]
    best = best_on_validation(problem, changes)
    return Adaptation(
        kind="direction",
        num_parameters=int(direction.numel()),
        applied=changes[best],
        notes={"strength": STRENGTHS[best]},
    )


def main_direction(problem: Problem) -> Float[Tensor, "layers hidden"]:
    """The first principal direction of the differences, plus their mean.

    A difference is the state behind every layer at the end of question and answer, minus the one at
    the end of the question.
    """
    order = generator_for(problem.seed, "icv").permutation(len(problem.items))[:_MOST_PAIRS]
    episodes = without_context([problem.items[int(place)] for place in order])
    layers = [site.layer for site in adaptable_sites(problem.backbone)]
    ends: list[Tensor] = []
    for with_answers in (True, False):
        rows: list[tuple[int, Tensor]] = []
        for places, batch in encode_parts(problem, episodes, with_answers=with_answers):
            found = outputs_at(problem.backbone, batch, layers, places=last_tokens(batch))
            rows += zip(places, found, strict=True)
        ends.append(torch.stack([row for _, row in sorted(rows, key=lambda pair: pair[0])]))
    return principal_direction((ends[0] - ends[1]).flatten(1)).reshape(ends[0].shape[1:])


def principal_direction(differences: Float[Tensor, "pairs width"]) -> Float[Tensor, " width"]:
    """The first principal component of the rows, signed towards their mean, plus that mean."""
    mean: Tensor = differences.mean(0)
    if len(differences) == 1:
        return mean
    component: Tensor = torch.linalg.svd(differences - mean, full_matrices=False).Vh[0]
    return mean + component * torch.sign(component @ mean)


def _steering(
    problem: Problem, direction: Float[Tensor, "layers hidden"], strength: float
) -> Applied:
    sites = adaptable_sites(problem.backbone)
    edits = [(site.mlp, steer(direction[site.index], strength)) for site in sites]

    return lambda _batch: edit_outputs(problem.backbone, edits)


def steer(direction: Float[Tensor, " hidden"], strength: float) -> Edit:
    """Turns every token towards the direction and keeps its length.

    The further a token points the other way, the more it is turned, up to twice as much.
    """
    unit = functional.normalize(direction, dim=-1)

    def edit(hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        wide = hidden.float()
        against = functional.cosine_similarity(wide, -unit, dim=-1).clamp_min(0)
        turned = functional.normalize(wide, dim=-1) + strength * (1 + against)[..., None] * unit
        length = wide.norm(dim=-1, keepdim=True)
        kept: Tensor = functional.normalize(turned, dim=-1) * length
        return kept.to(hidden.dtype)

    return edit
