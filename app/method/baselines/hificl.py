"""HiFICL: virtual keys and values of every head, each the product of two thin matrices.

Source: Li et al. (2026), HiFICL, arXiv 2603.12760. From its description: the keys stand beside the
real ones in one softmax, values begin at nothing, and the true answers alone are learnt from. How
many there are, their rank and how keys begin is ours.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.adaptation.attention import attend_virtually, attend_with
from app.method.adaptation.edits import head_counts
from app.method.adaptation.fitting import Leaves, Recipe, fit_adaptation
from app.method.adaptation.problem import Adaptation, Problem
from app.method.evaluation.conditions import Applied

NUM_VIRTUAL: Final = 8
RANK: Final = 8
_RATE: Final = 0.02
# The keys' numbers then deviate by a tenth, as those of prefix tuning do.
_DEVIATION: Final = (0.1 / RANK**0.5) ** 0.5


def fit(problem: Problem) -> Adaptation:
    """Eight virtual keys and values a head of rank eight, trained on the true answers."""
    backbone = problem.backbone
    heads, width = head_counts(backbone)
    sites = (backbone.num_layers, heads)

    def start(generator: torch.Generator) -> Leaves:
        found = {}
        for name in ("keys", "values"):
            places, numbers = (*sites, NUM_VIRTUAL, RANK), (*sites, RANK, width)
            found[f"{name}_left"] = torch.randn(places, generator=generator) * _DEVIATION
            found[f"{name}_right"] = torch.randn(numbers, generator=generator) * _DEVIATION
        return {**found, "values_right": torch.zeros_like(found["values_right"])}

    def applied(leaves: Leaves) -> Applied:
        attend = attend_virtually(*products(leaves))
        return lambda _batch: attend_with(backbone, attend)

    recipe = Recipe(start=start, applied=applied, rate=_RATE)
    return fit_adaptation(problem, recipe, kind="virtual-keys", virtual=NUM_VIRTUAL, rank=RANK)


def products(
    leaves: Leaves,
) -> tuple[
    Float[Tensor, "layers heads virtual width"], Float[Tensor, "layers heads virtual width"]
]:
    """The keys and the values that the factors stand for."""
    return (
        leaves["keys_left"] @ leaves["keys_right"],
        leaves["values_left"] @ leaves["values_right"],
    )
