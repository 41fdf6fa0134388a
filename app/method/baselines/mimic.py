"""MimIC: a vector of every head behind a gate that the query and its keys decide.

Source: Jiang et al. (2025), Mimic in-context learning for multimodal tasks, arXiv 2504.08851.
"""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.adaptation.attention import attend_gated, attend_with
from app.method.adaptation.edits import adaptable_sites, edit_outputs, head_counts
from app.method.adaptation.fitting import Leaves, Recipe, fit_adaptation
from app.method.adaptation.problem import Adaptation, Problem, draw_contexts, encode_parts
from app.method.backbone.prompts import EncodedBatch
from app.method.evaluation.conditions import Applied
from app.method.training.answers import answer_logits
from app.method.training.losses import supervision

_RATE: Final = 0.3
_SUPERVISION_WEIGHT: Final = 0.5
_DEVIATION: Final = 0.01


def fit(problem: Problem) -> Adaptation:
    """Gated vectors that make every MLP write what it writes with demonstrations.

    States are compared where answer tokens are predicted.
    """
    wanted = teacher_states(problem)
    backbone = problem.backbone
    heads, width = head_counts(backbone)
    shape = (backbone.num_layers, heads, width)

    def start(generator: torch.Generator) -> Leaves:
        noise = [torch.randn(shape, generator=generator) * _DEVIATION for _ in range(2)]
        return {"vectors": noise[0], "gates": noise[1], "biases": torch.zeros(shape[:2])}

    def loss(places: Sequence[int], batch: EncodedBatch) -> Float[Tensor, ""]:
        logits, states = answer_states(problem, batch)
        far = (states - torch.cat([wanted[place] for place in places], dim=1)).square().mean()
        return far + _SUPERVISION_WEIGHT * supervision(logits, batch.targets).mean()

    def applied(leaves: Leaves) -> Applied:
        attend = attend_gated(leaves["vectors"], leaves["gates"], leaves["biases"])
        return lambda _batch: attend_with(backbone, attend)

    recipe = Recipe(start=start, applied=applied, rate=_RATE, loss=loss)
    return fit_adaptation(problem, recipe, kind="gated-heads")


@torch.no_grad()
def teacher_states(problem: Problem) -> dict[int, Float[Tensor, "layers answers hidden"]]:
    """What MLPs write with demonstrations, by item, where its answer tokens are predicted."""
    episodes = draw_contexts(problem, count=len(problem.items), purpose="mimic")
    place_of = {id(item): place for place, item in enumerate(problem.items)}
    found = {}
    for places, batch in encode_parts(problem, episodes):
        _, states = answer_states(problem, batch)
        counts = [len(ids) for ids in batch.answer_ids]
        for row, own in zip(places, torch.split(states, counts, dim=1), strict=True):
            found[place_of[id(episodes[row].query)]] = own
    return found


def answer_states(
    problem: Problem, batch: EncodedBatch
) -> tuple[Float[Tensor, "answers vocab"], Float[Tensor, "layers answers hidden"]]:
    """The logits of answer tokens, and what every MLP writes where they are predicted."""
    kept: list[Tensor] = []

    def keep(hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        kept.append(hidden[batch.predicts_answer].float())
        return hidden

    modules = [site.mlp for site in adaptable_sites(problem.backbone)]
    with edit_outputs(problem.backbone, [(module, keep) for module in modules]):
        logits = answer_logits(problem.backbone, batch)
    return logits, torch.stack(kept)
