"""Prompt tuning: learned embeddings that stand before the prompt.

What the decoder makes of them does not depend on what follows, so they are read once, one place
before another down from the prompt's first, and kept as keys and values.

Source: Lester et al. (2021), The power of scale for parameter-efficient prompt tuning, arXiv
2104.08691.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from app.core.errors import UnsupportedBackboneError
from app.method.adaptation.attention import attend_virtually, attend_with
from app.method.adaptation.fitting import Leaves, Recipe, fit_adaptation
from app.method.adaptation.problem import Adaptation, Problem
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.evaluation.conditions import Applied
from app.method.steering.sites import find_decoder

NUM_VIRTUAL: Final = 16
_RATE: Final = 0.2


def fit(problem: Problem) -> Adaptation:
    """Sixteen embeddings, which start as those of random tokens, trained on the true answers.

    Raises:
        UnsupportedBackboneError: Positions of the backbone are no single numbers that may count
            down from the prompt's first.
    """
    backbone = problem.backbone
    parameters = getattr(backbone.model.config.get_text_config(), "rope_parameters", None)
    if not parameters or "mrope_section" in parameters:
        raise UnsupportedBackboneError(
            f"{type(backbone.model).__name__} cannot be prompt-tuned: wanted rotary positions of "
            "one number a token"
        )

    def start(generator: torch.Generator) -> Leaves:
        table = cast("nn.Embedding", backbone.model.get_input_embeddings())
        ids = torch.randint(table.num_embeddings, (NUM_VIRTUAL,), generator=generator)
        return {"embeddings": table(ids.to(backbone.device)).detach().float().clone()}

    def applied(leaves: Leaves) -> Applied:
        @contextmanager
        def prepending(_batch: EncodedBatch) -> Iterator[None]:
            keys, values = read_virtual(backbone, leaves["embeddings"])
            with attend_with(backbone, attend_virtually(keys, values)):
                yield

        return prepending

    recipe = Recipe(start=start, applied=applied, rate=_RATE)
    return fit_adaptation(problem, recipe, kind="virtual-keys", virtual=NUM_VIRTUAL)


def read_virtual(
    backbone: Backbone, embeddings: Float[Tensor, "virtual hidden"]
) -> tuple[
    Float[Tensor, "layers heads virtual width"], Float[Tensor, "layers heads virtual width"]
]:
    """Keys and values of embeddings that end one place before position 0."""
    cache = DynamicCache()
    count = len(embeddings)
    decoder = cast("Any", find_decoder(backbone.model))
    decoder(
        inputs_embeds=embeddings.to(backbone.dtype)[None],
        position_ids=torch.arange(-count, 0, device=embeddings.device)[None],
        past_key_values=cache,
        use_cache=True,
    )
    layers: list[Any] = list(cache.layers)
    device = embeddings.device
    keys = torch.stack([layer.keys[0].to(device) for layer in layers])
    return keys, torch.stack([layer.values[0].to(device) for layer in layers])
