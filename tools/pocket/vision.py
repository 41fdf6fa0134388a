"""First stage: the vision tower learns to see, read out by linear heads on every visual token.

Knows pixels and attributes; knows no words. The heads are thrown away afterwards.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import Idefics3ForConditionalGeneration

from tools.pocket.pool import ScenePool, attribute_sizes, normalise


class AttributeHeads(nn.Module):
    """One linear read-out an attribute, shared by all visual tokens of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, size) for name, size in attribute_sizes().items()}
        )

    def forward(
        self, tokens: Float[Tensor, "images tokens width"]
    ) -> dict[str, Float[Tensor, "images tokens values"]]:
        """The logits of every attribute at every visual token."""
        return {name: head(tokens) for name, head in self.heads.items()}


def visual_tokens(
    model: Idefics3ForConditionalGeneration, features: Float[Tensor, "images patches vision"]
) -> Float[Tensor, "images tokens width"]:
    """What the connector's projection reads: neighbouring patches side by side."""
    connector = model.model.connector
    return connector.pixel_shuffle(features, connector.scale_factor)  # type: ignore[no-any-return]  # untyped in transformers


def heads_for(model: Idefics3ForConditionalGeneration) -> AttributeHeads:
    """Read-outs of the width of this model's visual tokens."""
    return AttributeHeads(model.model.connector.modality_projection.proj.in_features)


def attribute_loss(
    model: Idefics3ForConditionalGeneration,
    heads: AttributeHeads,
    pool: ScenePool,
    *,
    rows: np.ndarray,
) -> Tensor:
    """Cross-entropy of all attributes, every visual token answering for the whole image."""
    chosen = torch.from_numpy(rows)
    features = model.model.vision_model(pixel_values=normalise(pool.pixels[chosen]))
    logits = heads(visual_tokens(model, features.last_hidden_state))
    losses = []
    for name, values in logits.items():
        targets = pool.values[name][chosen].unsqueeze(1).expand(values.shape[:2])
        losses.append(functional.cross_entropy(values.flatten(0, 1), targets.flatten()))
    return torch.stack(losses).sum()


@torch.no_grad()
def attribute_accuracy(
    model: Idefics3ForConditionalGeneration, heads: AttributeHeads, pool: ScenePool
) -> dict[str, float]:
    """The share of images whose tokens together read out each attribute correctly."""
    hits = dict.fromkeys(attribute_sizes(), 0)
    for rows in _slices(len(pool)):
        features = model.model.vision_model(pixel_values=normalise(pool.pixels[rows]))
        for name, logits in heads(visual_tokens(model, features.last_hidden_state)).items():
            hits[name] += int((logits.mean(1).argmax(-1) == pool.values[name][rows]).sum())
    return {name: count / len(pool) for name, count in hits.items()}


def _slices(size: int, step: int = 500) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
