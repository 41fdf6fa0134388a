"""The first pass of prompts end to end in one row: no padding, however their lengths differ."""

from collections import abc
from itertools import accumulate, pairwise
from typing import Any, Final

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks
from app.worker.engine.batching.masks import Kinds, varlen_masks
from app.worker.engine.batching.prefill import Prefilled, accepted_inputs
from app.worker.engine.collate import stack_shifts, varlen_inputs
from app.worker.engine.scheduler import CHEAP_TOKENS
from app.worker.engine.sequence import Sequence

# Other inputs, such as pixels or what tells image tokens from text, may be read row by row.
_VARLEN_KEYS: Final = frozenset({"input_ids", "attention_mask", "mm_encoder_outputs"})


def is_varlen(backbone: Backbone, sequence: Sequence) -> bool:
    """Whether this prompt may lie end to end with others."""
    is_able = {"logits_to_keep", "position_ids"} <= accepted_inputs(type(backbone.model).forward)
    return is_able and sequence.inputs.keys() <= _VARLEN_KEYS


def saves_padding(rows: abc.Sequence[Sequence]) -> bool:
    """Whether these prompts would be padded otherwise, and are no more than one cheap pass."""
    lengths = [row.num_prompt_tokens for row in rows]
    return len(set(lengths)) > 1 and sum(lengths) <= CHEAP_TOKENS


def varlen_prefill(
    backbone: Backbone, rows: abc.Sequence[Sequence], *, hooks: ShiftHooks, kinds: Kinds
) -> Prefilled:
    """The prompts read, each under its own shift.

    Raises:
        SteeringError: A shift could not be applied in full.
    """
    positions = [_positions(backbone.model, row) for row in rows]
    lengths = [row.num_prompt_tokens for row in rows]
    device = rows[0].inputs["input_ids"].device
    token_rows = torch.arange(len(rows), device=device).repeat_interleave(
        torch.tensor(lengths, device=device)
    )
    ends = list(accumulate(lengths, initial=0))
    lasts = torch.tensor(ends[1:], device=device) - 1
    cache, shifts = DynamicCache(), stack_shifts([row.shift for row in rows])
    inputs = {
        **varlen_inputs([row.inputs for row in rows]),
        "attention_mask": varlen_masks(kinds, token_rows, dtype=backbone.dtype),
        "position_ids": torch.cat(positions, dim=-1),
        "past_key_values": cache,
        "use_cache": True,
        "logits_to_keep": lasts,
    }
    with hooks.applied(shifts, token_rows=token_rows) as receipt:
        outputs = backbone.model(**inputs, return_dict=True)
    return Prefilled(
        cache=cache,
        sources=[(0, slice(start, end)) for start, end in pairwise(ends)],
        output=(outputs.logits[0].float(), receipt.sites_hit),
        next_positions=torch.cat([one[..., 0, -1:] for one in positions], dim=-1) + 1,
    )


def _positions(model: Any, row: Sequence) -> Int[Tensor, "*components 1 tokens"]:  # noqa: ANN401
    state = {key: value for key, value in row.inputs.items() if key != "input_ids"}
    found: Int[Tensor, "*components 1 tokens"] = model._prepare_position_ids_for_generation(  # noqa: SLF001 - each family's own rule
        row.inputs["input_ids"], state
    )
    return found
