"""Function Vector: what the heads that carry the task write, added to the last token of one layer.

Source: Todd et al. (2024), Function vectors in large language models, arXiv 2310.15213.
"""

from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.adaptation.edits import (
    Hidden,
    edit_layer,
    mean_heads,
    output_projections,
    replace_heads,
)
from app.method.adaptation.problem import (
    Adaptation,
    Problem,
    best_on_validation,
    draw_contexts,
    encode_parts,
)
from app.method.backbone.examples import Episode
from app.method.backbone.prompts import EncodedBatch
from app.method.backbone.randomness import generator_for
from app.method.training.answers import answer_logits

_MOST_CONTEXTS: Final = 50
_CORRUPTED: Final = 16
_NUM_HEADS: Final = 10


def fit(problem: Problem) -> Adaptation:
    """The sum of what the ten strongest heads write on average, at the layer chosen on validation.

    A head is as strong as its mean output raises the probability of the right first answer token
    when it is put into prompts whose demonstrations have each other's answers.
    """
    means = mean_heads(problem, count=_MOST_CONTEXTS, purpose="function-vector")
    effects = indirect_effects(problem, means)
    layers, heads = effects.shape
    strongest = effects.flatten().topk(min(_NUM_HEADS, layers * heads)).indices.tolist()
    vector = sum_of_heads(problem, means, [divmod(index, heads) for index in strongest])

    def add(hidden: Hidden) -> Hidden:
        return hidden + vector.to(hidden.dtype)

    changes = [edit_layer(problem.backbone, layer, add) for layer in range(layers)]
    layer = best_on_validation(problem, changes)
    return Adaptation(
        kind="last-token",
        num_parameters=int(vector.numel()),
        applied=changes[layer],
        notes={"layer": layer, "shots": problem.shots},
    )


@torch.no_grad()
def indirect_effects(
    problem: Problem, means: Float[Tensor, "layers heads width"]
) -> Float[Tensor, "layers heads"]:
    """How much each head's mean output raises the right first token's probability."""
    episodes = draw_contexts(problem, count=_CORRUPTED, purpose="corrupted")
    parts = encode_parts(problem, [_corrupted(problem, one) for one in episodes])
    before = torch.cat([_first_token(problem, batch) for _, batch in parts])
    layers, heads = means.shape[:2]
    effects = torch.zeros(layers, heads)
    for layer in range(layers):
        for head in range(heads):
            chosen = torch.zeros(layers, heads, dtype=torch.bool)
            chosen[layer, head] = True
            patched = replace_heads(problem.backbone, means, chosen)
            after = []
            for _, batch in parts:
                with patched(batch):
                    after.append(_first_token(problem, batch))
            effects[layer, head] = (torch.cat(after) - before).mean()
    return effects


def sum_of_heads(
    problem: Problem, means: Float[Tensor, "layers heads width"], chosen: list[tuple[int, int]]
) -> Float[Tensor, " hidden"]:
    """What the chosen heads (layer, head) write into the residual stream, together."""
    projections = output_projections(problem.backbone)
    width = means.shape[-1]
    written = [
        projections[layer].weight[:, head * width : (head + 1) * width].to(means)
        @ means[layer, head]
        for layer, head in chosen
    ]
    return torch.stack(written).sum(0).detach()


def _corrupted(problem: Problem, episode: Episode) -> Episode:
    """The same demonstrations with their answers in another order."""
    generator = generator_for(problem.seed, "shuffle", episode.query.id)
    answers = generator.permutation([item.answer for item in episode.context]).tolist()
    context = tuple(
        replace(item, answers=(answer,))
        for item, answer in zip(episode.context, answers, strict=True)
    )
    return Episode(query=episode.query, context=context)


def _first_token(problem: Problem, batch: EncodedBatch) -> Float[Tensor, " rows"]:
    """The probability of each row's first answer token."""
    shares = answer_logits(problem.backbone, batch).float().softmax(-1)
    counts = [len(ids) for ids in batch.answer_ids]
    firsts = torch.tensor([0, *counts[:-1]], device=shares.device).cumsum(0)
    return shares[firsts, batch.targets[firsts]]
