"""LIVE: a learned vector and weight a layer, added to the layer's output, its length kept.

Source: Peng et al. (2024), Learnable in-context vector, arXiv 2406.13185.
"""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.adaptation.edits import Edit, adaptable_sites, edit_outputs
from app.method.adaptation.fitting import Leaves, Recipe, fit_adaptation
from app.method.adaptation.problem import Adaptation, Problem, draw_contexts
from app.method.backbone.prompts import EncodedBatch
from app.method.evaluation.conditions import Applied
from app.method.steps import finish
from app.method.training.answers import answer_logits
from app.method.training.losses import mimicry, supervision
from app.method.training.teacher import TeacherCache, compute_teacher

_RATE: Final = 0.3
_SUPERVISION_WEIGHT: Final = 0.5
_DEVIATION: Final = 0.01
_FIRST_WEIGHT: Final = 0.1
_TOP_K: Final = 256


def fit(problem: Problem) -> Adaptation:
    """Vectors that follow the answers given with demonstrations, and half as much the true ones."""
    teacher, place_of = _teach(problem)
    backbone = problem.backbone

    def start(generator: torch.Generator) -> Leaves:
        shape = (backbone.num_layers, backbone.hidden_size)
        vectors = torch.randn(shape, generator=generator) * _DEVIATION
        return {"vectors": vectors, "weights": torch.full((backbone.num_layers,), _FIRST_WEIGHT)}

    def loss(places: Sequence[int], batch: EncodedBatch) -> Float[Tensor, ""]:
        logits = answer_logits(backbone, batch)
        wanted = teacher.rows([place_of[place] for place in places])
        near = mimicry(logits, wanted).mean()
        return near + _SUPERVISION_WEIGHT * supervision(logits, batch.targets).mean()

    def applied(leaves: Leaves) -> Applied:
        scaled = leaves["vectors"] * leaves["weights"][:, None]
        edits = [(site.layer, shift(scaled[site.index])) for site in adaptable_sites(backbone)]
        return lambda _batch: edit_outputs(backbone, edits)

    recipe = Recipe(start=start, applied=applied, rate=_RATE, loss=loss)
    return fit_adaptation(problem, recipe, kind="normed-shift", teacher_accuracy=teacher.accuracy)


def _teach(problem: Problem) -> tuple[TeacherCache, dict[int, int]]:
    """What is answered with demonstrations, and which of its rows belongs to which item."""
    episodes = draw_contexts(problem, count=len(problem.items), purpose="live")
    teacher = finish(
        compute_teacher(
            problem.features,
            episodes,
            temperature=1.0,
            top_k=_TOP_K,
            token_budget=problem.token_budget,
        )
    )
    rows = {id(one.query): row for row, one in enumerate(episodes)}
    places = {place: rows[id(item)] for place, item in enumerate(problem.items)}
    return teacher.on(problem.backbone.device), places


def shift(vector: Float[Tensor, " hidden"]) -> Edit:
    """Adds the vector to every token and gives the token its length back."""

    def edit(hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        wide = hidden.float()
        moved = wide + vector
        length = wide.norm(dim=-1, keepdim=True)
        kept: Tensor = moved * length / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return kept.to(hidden.dtype)

    return edit
