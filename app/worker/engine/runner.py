"""Calls of the backbone: prefill a batch, decode one token of every row, drop rows.

Follows the stock `generate` loop call by call, which is what makes it exact for every family; only
the shifts, the choice of tokens and the leaving of rows are ours.
"""

import inspect
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.generation.utils import MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL

from app.method.backbone import Backbone
from app.method.injection import ShiftHooks
from app.worker.engine.sequence import Sequence
from app.worker.engine.stacking import select_rows, stack_inputs, stack_shifts

# Read by the first pass only; holding on to pixels would cost more than the cache does.
_IMAGE_KEYS: Final = frozenset(
    {
        *MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL,
        "image_grid_thw",
        "aspect_ratio_ids",
        "aspect_ratio_mask",
    }
)


@dataclass(kw_only=True, eq=False)
class Batch:
    """Rows that are decoded together, with their cache.

    Attributes:
        rows: The sequences, row by row.
        tokens: All ids so far, padded on the left.
        state: What the stock loop carries from one pass to the next, the cache included.
        shifts: One row each, or none when no row is steered.
    """

    rows: list[Sequence]
    tokens: Int[Tensor, "rows tokens"]
    state: dict[str, Any]
    shifts: Float[Tensor, "rows layers 2 hidden"] | None


class Runner:
    """The backbone with resident hooks. Device thread only."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        # Its methods for generation come from a mixin that type checkers do not see.
        self._model: Any = backbone.model
        self._hooks = ShiftHooks(backbone)
        accepted = inspect.signature(backbone.model.forward).parameters
        self._keeps_last_logits = "logits_to_keep" in accepted
        self._takes_positions = "position_ids" in accepted

    @property
    def num_sites(self) -> int:
        """Sites that a steered pass has to hit."""
        return self._hooks.num_sites

    def close(self) -> None:
        """Take the hooks off the backbone."""
        self._hooks.remove()

    def prefill(self, rows: Rows[Sequence]) -> tuple[Batch, Float[Tensor, "rows vocab"]]:
        """A new batch and the logits of each row's first token.

        Args:
            rows: Sequences of one layout.

        Raises:
            SteeringError: A shift could not be applied in full.
        """
        model = self._model
        pad = int(self._backbone.tokenizer.pad_token_id)
        state = stack_inputs([row.inputs for row in rows], pad_token_id=pad)
        tokens = state.pop("input_ids")
        state["past_key_values"] = DynamicCache(config=model.config.get_text_config())
        state["use_cache"] = True
        if self._keeps_last_logits:
            state["logits_to_keep"] = 1
        if self._takes_positions:
            state["position_ids"] = model._prepare_position_ids_for_generation(  # noqa: SLF001 - each family's own rule
                tokens, state
            )
        shifts = stack_shifts([row.shift for row in rows])
        batch = Batch(rows=list(rows), tokens=tokens, state=state, shifts=shifts)
        logits = self._forward(batch, is_first=True)
        batch.state = {key: value for key, value in batch.state.items() if key not in _IMAGE_KEYS}
        return batch, logits

    def decode(self, batch: Batch) -> Float[Tensor, "rows vocab"]:
        """The logits of each row's next token, after the tokens last taken.

        Raises:
            SteeringError: A shift could not be applied in full.
        """
        return self._forward(batch, is_first=False)

    def take(self, batch: Batch, token_ids: Rows[int]) -> None:
        """Append one token to every row."""
        column = torch.tensor(token_ids, dtype=torch.long, device=batch.tokens.device)[:, None]
        batch.tokens = torch.cat([batch.tokens, column], dim=1)

    def keep(self, batch: Batch, rows: Rows[int]) -> None:
        """Drop all other rows, their cache included."""
        if len(rows) == len(batch.rows):
            return
        kept = torch.tensor(rows, dtype=torch.long, device=batch.tokens.device)
        batch.rows = [batch.rows[row] for row in rows]
        batch.tokens = batch.tokens[kept]
        batch.state = select_rows(batch.state, kept=kept)
        batch.state["past_key_values"].batch_select_indices(kept)
        if batch.shifts is not None:
            batch.shifts = batch.shifts.index_select(0, kept.to(batch.shifts.device))

    def _forward(self, batch: Batch, *, is_first: bool) -> Float[Tensor, "rows vocab"]:
        model = self._model
        inputs = model.prepare_inputs_for_generation(
            batch.tokens,
            next_sequence_length=None if is_first else 1,
            is_first_iteration=is_first,
            **batch.state,
        )
        receipt = self._hooks.bind(batch.shifts)
        try:
            outputs = model(**inputs, return_dict=True)
        finally:
            self._hooks.bind(None)
        if batch.shifts is not None:
            receipt.verify()
        for row in batch.rows:
            row.note_forward(sites_hit=0 if row.shift is None else receipt.sites_hit)
        batch.state = model._update_model_kwargs_for_generation(  # noqa: SLF001 - the stock loop's own bookkeeping
            outputs, batch.state, is_encoder_decoder=False
        )
        logits: Float[Tensor, "rows vocab"] = outputs.logits[:, -1].float()
        return logits
