"""What modules write at one token of every row."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from app.method.adaptation.adapted import Problem
from app.method.adaptation.answering import draw_contexts, encode_parts
from app.method.adaptation.edits import (
    Hidden,
    edit_inputs,
    edit_outputs,
    head_counts,
    last_prompt_tokens,
    output_projections,
)
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch


@torch.no_grad()
def outputs_at(
    backbone: Backbone,
    batch: EncodedBatch,
    modules: Sequence[nn.Module],
    *,
    places: Int[Tensor, " rows"],
    edit: Callable[..., AbstractContextManager[None]] = edit_outputs,
) -> Float[Tensor, "rows modules width"]:
    """What each module gives out, or with `edit_inputs` takes in, at one token of each row."""
    kept: list[Tensor] = []
    with edit([(module, _keeping(kept, places)) for module in modules]):
        backbone.model(**batch.inputs, use_cache=False)
    return torch.stack(kept, dim=1)


def mean_heads(
    problem: Problem, *, count: int, purpose: str
) -> Float[Tensor, "layers heads width"]:
    """What every head gives out at the last prompt token, over prompts with demonstrations."""
    projections = output_projections(problem.backbone)
    asked = draw_contexts(problem, count=count, purpose=purpose)
    found = [
        outputs_at(
            problem.backbone,
            part.batch,
            projections,
            places=last_prompt_tokens(part.batch),
            edit=edit_inputs,
        )
        for part in encode_parts(problem, asked, with_answers=False)
    ]
    mean: Tensor = torch.cat(found).mean(0)
    return mean.reshape(len(projections), *head_counts(problem.backbone))


def _keeping(kept: list[Tensor], places: Int[Tensor, " rows"]) -> Callable[[Hidden], Hidden]:
    def keep(hidden: Hidden) -> Hidden:
        rows = torch.arange(len(places), device=hidden.device)
        kept.append(hidden[rows, places].float())
        return hidden

    return keep
