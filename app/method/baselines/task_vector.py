"""Task Vector: what the last token is in context takes its place without context.

Source: Hendel et al. (2023), In-context learning creates task vectors, arXiv 2310.15916.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.adaptation.edits import (
    adaptable_sites,
    edit_layer,
    last_prompt_tokens,
    outputs_at,
)
from app.method.adaptation.problem import (
    Adaptation,
    Problem,
    best_on_validation,
    draw_contexts,
    encode_parts,
)

_MOST_CONTEXTS: Final = 50


def fit(problem: Problem) -> Adaptation:
    """The mean state of the last prompt token behind the layer that validation items do best with.

    The state replaces the one that the prompt alone would have there, in prefill only.
    """
    states = mean_states(problem)
    changes = [
        edit_layer(problem.backbone, layer, state.expand_as) for layer, state in enumerate(states)
    ]
    layer = best_on_validation(problem, changes)
    return Adaptation(
        kind="last-token",
        num_parameters=int(states.shape[1]),
        applied=changes[layer],
        notes={"layer": layer, "shots": problem.shots},
    )


def mean_states(problem: Problem) -> Float[Tensor, "layers hidden"]:
    """The state behind every layer at the last prompt token, over prompts with demonstrations."""
    episodes = draw_contexts(problem, count=_MOST_CONTEXTS, purpose="task-vector")
    layers = [site.layer for site in adaptable_sites(problem.backbone)]
    found = [
        outputs_at(problem.backbone, batch, layers, places=last_prompt_tokens(batch))
        for _, batch in encode_parts(problem, episodes, with_answers=False)
    ]
    return torch.cat(found).mean(0)
