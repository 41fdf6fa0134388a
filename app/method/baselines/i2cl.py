"""I2CL: each branch mixed with its mean over single demonstrations, by two scalars a branch.

Source: Li et al. (2024), Implicit in-context learning, arXiv 2405.14660.
"""

from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.adaptation.edits import (
    Edit,
    adaptable_sites,
    edit_outputs,
    last_tokens,
    outputs_at,
)
from app.method.adaptation.fitting import Leaves, Recipe, fit_adaptation
from app.method.adaptation.problem import Adaptation, Problem, encode_parts, without_context
from app.method.evaluation.conditions import Applied

_RATE: Final = 0.01
_NOISE: Final = 1e-3
_FIRST_SHARE: Final = 0.1


def fit(problem: Problem) -> Adaptation:
    """The context vectors of all items with calibrated scalars, four a layer."""
    context = context_vectors(problem)
    generator = torch.Generator().manual_seed(problem.seed)

    def start(_generator: torch.Generator) -> Leaves:
        shape = context.shape[:2]
        return {"context": torch.full(shape, _FIRST_SHARE), "own": torch.ones(shape)}

    recipe = Recipe(
        start=start,
        applied=lambda leaves: _mixing(problem, context, leaves, generator=generator),
        rate=_RATE,
    )
    found = fit_adaptation(problem, recipe, kind="scaled-context")
    return replace(found, num_parameters=found.num_parameters + context.numel())


def context_vectors(problem: Problem) -> Float[Tensor, "layers 2 hidden"]:
    """What attention and MLP write at the end of one demonstration, the mean over all items."""
    sites = adaptable_sites(problem.backbone)
    modules = [module for site in sites for module in (site.attention, site.mlp)]
    found = [
        outputs_at(problem.backbone, batch, modules, places=last_tokens(batch))
        for _, batch in encode_parts(problem, without_context(problem.items))
    ]
    mean: Tensor = torch.cat(found).mean(0)
    return mean.reshape(len(sites), 2, -1)


def _mixing(
    problem: Problem,
    context: Float[Tensor, "layers 2 hidden"],
    leaves: Leaves,
    *,
    generator: torch.Generator,
) -> Applied:
    edits = []
    for site in adaptable_sites(problem.backbone):
        for branch, module in enumerate((site.attention, site.mlp)):
            place = (site.index, branch)
            scalars = (leaves["own"][place], leaves["context"][place])
            edit = mix(context[place], scalars, generator=generator)
            edits.append((module, edit))

    return lambda _batch: edit_outputs(problem.backbone, edits)


def mix(
    context: Float[Tensor, " hidden"],
    scalars: tuple[Float[Tensor, ""], Float[Tensor, ""]],
    *,
    generator: torch.Generator,
) -> Edit:
    """The output times its own scalar plus the context times the other; noise while it learns."""
    own, share = scalars

    def edit(hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        mixed = own * hidden + share * context.to(hidden.dtype)
        if torch.is_grad_enabled():
            drawn = torch.randn(hidden.shape, generator=generator).to(hidden)
            mixed = mixed + _NOISE * drawn
        return mixed.to(hidden.dtype)

    return edit
