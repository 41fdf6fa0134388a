"""The first pass of prompts end to end in one row: no padding, however their lengths differ."""

import inspect
from collections import abc
from itertools import accumulate, pairwise
from typing import Any, Final

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks
from app.worker.engine.batching.masks import attention_kinds, varlen_masks
from app.worker.engine.batching.passes import ForwardOutput, checked_forward
from app.worker.engine.batching.prefill import Prefilled
from app.worker.engine.collate import stack_shifts, varlen_inputs
from app.worker.engine.scheduler import CHEAP_TOKENS
from app.worker.engine.sequence import Sequence

# Other inputs, such as pixels or what tells image tokens from text, may be read row by row.
_VARLEN_KEYS: Final = frozenset({"input_ids", "attention_mask", "mm_encoder_outputs"})


class VarlenPrefill:
    """First passes without padding. Device thread only."""

    def __init__(self, backbone: Backbone, hooks: ShiftHooks) -> None:
        # Its methods for generation come from a mixin that type checkers do not see.
        self._model: Any = backbone.model
        self._hooks = hooks
        self._dtype = backbone.dtype
        self._kinds = attention_kinds(backbone.model.config.get_text_config())
        accepted = inspect.signature(backbone.model.forward).parameters
        self._is_able = {"logits_to_keep", "position_ids"} <= set(accepted)

    def takes(self, sequence: Sequence) -> bool:
        """Whether this prompt may lie end to end with others."""
        return self._is_able and sequence.inputs.keys() <= _VARLEN_KEYS

    def pays(self, rows: abc.Sequence[Sequence]) -> bool:
        """Whether these prompts may all lie end to end and would be padded otherwise."""
        lengths = {row.num_prompt_tokens for row in rows}
        num_tokens = sum(row.num_prompt_tokens for row in rows)
        return len(lengths) > 1 and num_tokens <= CHEAP_TOKENS and all(map(self.takes, rows))

    def run(self, rows: abc.Sequence[Sequence]) -> Prefilled:
        """The prompts read, each under its own shift.

        Raises:
            SteeringError: A shift could not be applied in full.
        """
        positions = [self._positions(row) for row in rows]
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
            "attention_mask": varlen_masks(self._kinds, token_rows, dtype=self._dtype),
            "position_ids": torch.cat(positions, dim=-1),
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": lasts,
        }
        outputs, sites_hit = checked_forward(
            self._model, inputs, hooks=self._hooks, shifts=shifts, token_rows=token_rows
        )
        return Prefilled(
            cache=cache,
            sources=[(0, slice(start, end)) for start, end in pairwise(ends)],
            output=ForwardOutput(logits=outputs.logits[0].float(), sites_hit=sites_hit),
            next_positions=torch.cat([one[..., 0, -1:] for one in positions], dim=-1) + 1,
        )

    def _positions(self, row: Sequence) -> Int[Tensor, "*components 1 tokens"]:
        state = {key: value for key, value in row.inputs.items() if key != "input_ids"}
        found: Int[Tensor, "*components 1 tokens"] = (
            self._model._prepare_position_ids_for_generation(  # noqa: SLF001 - each family's own rule
                row.inputs["input_ids"], state
            )
        )
        return found
