"""Prefix tuning: learned keys and values in every layer that all tokens attend to.

Source: Li and Liang (2021), Prefix-tuning, arXiv 2101.00190, without its reparametrisation, as PEFT
has it by default.
"""

from typing import Final

import torch

from app.method.adaptation.attention import attend_virtually, attend_with
from app.method.adaptation.edits import head_counts
from app.method.adaptation.fitting import Leaves, Recipe, fit_adaptation
from app.method.adaptation.problem import Adaptation, Problem
from app.method.evaluation.conditions import Applied

NUM_VIRTUAL: Final = 16
_RATE: Final = 0.2
_DEVIATION: Final = 0.1


def fit(problem: Problem) -> Adaptation:
    """Sixteen virtual keys and values a layer, trained on the true answers."""
    backbone = problem.backbone
    config = backbone.model.config.get_text_config()
    heads, width = head_counts(backbone)
    kept = int(getattr(config, "num_key_value_heads", None) or heads)
    shape = (backbone.num_layers, kept, NUM_VIRTUAL, width)

    def start(generator: torch.Generator) -> Leaves:
        return {
            name: torch.randn(shape, generator=generator) * _DEVIATION
            for name in ("keys", "values")
        }

    def applied(leaves: Leaves) -> Applied:
        attend = attend_virtually(leaves["keys"], leaves["values"])
        return lambda _batch: attend_with(backbone, attend)

    recipe = Recipe(start=start, applied=applied, rate=_RATE)
    return fit_adaptation(problem, recipe, kind="virtual-keys", virtual=NUM_VIRTUAL)
