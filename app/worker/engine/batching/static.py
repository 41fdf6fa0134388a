"""Rows that stay with those they were prefilled with, decoded by the stock loop call by call.

For families whose decoder keeps more than keys and values. Only the shifts, the choice of tokens
and the leaving of rows are ours.
"""

from collections import abc

import torch

from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks
from app.worker.engine.batching.prefill import (
    ForwardOutput,
    PaddedBatch,
    padded_prefill,
    stock_forward,
)
from app.worker.engine.collate import select_rows
from app.worker.engine.sequence import Sequence


class StaticBatching:
    """A backbone that decodes whole batches. Device thread only.

    Attributes:
        is_repeatable: A failed decode cannot be repeated.
    """

    is_repeatable = False

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._hooks = ShiftHooks(backbone.model)
        self._batches: list[PaddedBatch] = []

    def is_varlen(self, _sequence: Sequence) -> bool:
        """Never: a batch that the stock loop carries on with is a padded one."""
        return False

    @property
    def groups(self) -> abc.Sequence[abc.Sequence[Sequence]]:
        """The batches."""
        return [list(batch.rows) for batch in self._batches]

    def close(self) -> None:
        """Take the hooks off the backbone."""
        self._hooks.remove()

    def prefill(self, rows: abc.Sequence[Sequence]) -> ForwardOutput:
        """Start a batch."""
        batch, done = padded_prefill(self._backbone, rows, hooks=self._hooks, keeps_windows=True)
        self._batches.append(batch)
        return done.output

    def decode(self, rows: abc.Sequence[Sequence]) -> ForwardOutput:
        """The pass after the tokens last taken."""
        batch = self._batch_of(rows)
        output, batch.state = stock_forward(
            self._backbone.model,
            batch.tokens,
            batch.state,
            hooks=self._hooks,
            shifts=batch.shifts,
            is_first=False,
        )
        return output

    def take(self, rows: abc.Sequence[Sequence], token_ids: abc.Sequence[int]) -> None:
        """Append one token to every row of a batch."""
        batch = self._batch_of(rows)
        column = torch.tensor(token_ids, dtype=torch.long, device=batch.tokens.device)[:, None]
        batch.tokens = torch.cat([batch.tokens, column], dim=1)

    def drop(self, rows: abc.Sequence[Sequence]) -> None:
        """Free these rows, their cache included."""
        gone = {row.id for row in rows}
        for batch in self._batches:
            kept = [place for place, row in enumerate(batch.rows) if row.id not in gone]
            if kept and len(kept) < len(batch.rows):
                _keep(batch, kept)
            elif not kept:
                batch.rows.clear()
        self._batches = [batch for batch in self._batches if batch.rows]

    def clear(self) -> None:
        """Free all rows."""
        self._batches = []

    def _batch_of(self, rows: abc.Sequence[Sequence]) -> PaddedBatch:
        return next(batch for batch in self._batches if batch.rows[0].id == rows[0].id)


def _keep(batch: PaddedBatch, places: abc.Sequence[int]) -> None:
    kept = torch.tensor(places, dtype=torch.long, device=batch.tokens.device)
    batch.rows = [batch.rows[place] for place in places]
    batch.tokens = batch.tokens[kept]
    batch.state = select_rows(batch.state, kept=kept)
    for layer in batch.state["past_key_values"].layers:
        # A layer that was left out so far, as those that look at pictures are, holds nothing.
        device = kept.device if layer.keys is None else layer.keys.device
        layer.batch_select_indices(kept.to(device))
    if batch.shifts is not None:
        batch.shifts = batch.shifts.index_select(0, kept.to(batch.shifts.device))
