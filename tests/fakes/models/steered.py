"""Shifts of tiny models, and what they do to the logits."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.method.steering.injection import inject
from app.method.steering.vectors import InContextVectors

TOLERANCE = 2e-5


Models = Callable[[str], PreTrainedModel]


Shifts = Callable[..., Tensor]


def first_of(output: object) -> Tensor:
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first


def logits_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


def steered_logits(model: PreTrainedModel, inputs: dict[str, Tensor], shifts: Tensor) -> Tensor:
    with inject(model, shifts):
        return logits_of(model, inputs)


def random_vectors(
    num_layers: int, hidden_size: int, *, generator: torch.Generator
) -> InContextVectors:
    """Small vectors that nobody has trained."""
    attention, mlp = (
        torch.randn(num_layers, hidden_size, generator=generator) * 0.01 for _ in range(2)
    )
    return InContextVectors(
        attention_vectors=attention,
        mlp_vectors=mlp,
        attention_weights=torch.full((num_layers,), 0.1),
        mlp_weights=torch.full((num_layers,), 0.1),
    )
