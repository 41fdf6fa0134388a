"""Rows that join and leave between any two passes, all decoded in one pass.

Running rows are compact: the first n of every buffer. One that leaves is replaced by the last.

Source: the layout of rows follows what vLLM and nano-vllm do with slots; that a stock forward can
decode ragged rows with explicit masks and positions was shown by our own prototype.
"""

from collections import abc
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks, SiteShifts
from app.method.steering.sites import branch_scale, find_sites
from app.worker.engine.batching.cache import RowCache
from app.worker.engine.batching.masks import attention_kinds, decode_masks
from app.worker.engine.batching.prefill import ForwardOutput, Prefilled, padded_prefill
from app.worker.engine.batching.varlen import is_varlen, saves_padding, varlen_prefill
from app.worker.engine.sequence import Sequence


class ContinuousBatching:
    """A backbone that decodes rows in flight. Device thread only.

    Attributes:
        is_repeatable: A failed decode can be repeated, with all rows or some of them.
    """

    is_repeatable = True

    def __init__(self, backbone: Backbone, *, max_rows: int) -> None:
        self._backbone = backbone
        self._dtype = backbone.dtype
        self._kinds = attention_kinds(backbone.model.config.get_text_config())
        self._hooks = ShiftHooks(backbone.model)
        self._shifts = ShiftBuffer(backbone, max_rows=max_rows)
        self._cache = RowCache(max_rows=max_rows, device=backbone.device)
        self._tokens: Int[Tensor, "rows 1"] = torch.zeros(
            (max_rows, 1), dtype=torch.long, device=backbone.device
        )
        # How far a row's next position is ahead of the place it is written to, by component.
        self._ahead: Int[Tensor, "*components rows"] = torch.zeros_like(self._tokens[:, 0])
        self._max_rows = max_rows
        self._rows: list[Sequence] = []

    def is_varlen(self, sequence: Sequence) -> bool:
        """Whether its prompt may be read end to end with others."""
        return is_varlen(self._backbone, sequence)

    @property
    def groups(self) -> abc.Sequence[abc.Sequence[Sequence]]:
        """All running rows, which are decoded together."""
        return [list(self._rows)] if self._rows else []

    def close(self) -> None:
        """Take the hooks off the backbone."""
        self._hooks.remove()

    def prefill(self, rows: abc.Sequence[Sequence]) -> ForwardOutput:
        """Let the rows join."""
        if saves_padding(rows) and all(map(self.is_varlen, rows)):
            done = varlen_prefill(self._backbone, rows, hooks=self._hooks, kinds=self._kinds)
        else:
            _, done = padded_prefill(self._backbone, rows, hooks=self._hooks, keeps_windows=False)
        self._cache.reserve(max(row.num_prompt_tokens for row in rows))
        for place, sequence in enumerate(rows):
            self._join(sequence, done, place=place)
        return done.output

    def decode(self, rows: abc.Sequence[Sequence]) -> ForwardOutput:
        """The pass after the tokens last taken."""
        first = self._index(rows[0])
        which = slice(first, first + len(rows))
        cache = self._cache
        cache.select(which)
        cache.reserve(cache.reach)
        written = cache.next[which]
        inputs = {
            "input_ids": self._tokens[which],
            "attention_mask": decode_masks(
                self._kinds, written, reach=cache.reach, dtype=self._dtype
            ),
            "position_ids": (self._ahead[..., which] + written)[..., None],
            "past_key_values": cache.as_stock,
            "use_cache": True,
        }
        with self._hooks.applied(self._shifts.of(which)) as receipt:
            outputs = self._backbone.model(**inputs, return_dict=True)
        return outputs.logits[:, -1].float(), receipt.sites_hit

    def take(self, rows: abc.Sequence[Sequence], token_ids: abc.Sequence[int]) -> None:
        """Append one token to each of these rows."""
        first = self._index(rows[0])
        which = slice(first, first + len(rows))
        self._tokens[which, 0] = torch.tensor(token_ids, device=self._tokens.device)
        self._cache.advance(which)

    def drop(self, rows: abc.Sequence[Sequence]) -> None:
        """Free these rows and close the gaps."""
        gone = {row.id for row in rows}
        for place in range(len(self._rows) - 1, -1, -1):
            if self._rows[place].id in gone:
                self._leave(place)
        self._cache.fit(len(self._rows))

    def clear(self) -> None:
        """Free all rows."""
        self._rows = []

    def _index(self, row: Sequence) -> int:
        return next(place for place, one in enumerate(self._rows) if one.id == row.id)

    def _join(self, sequence: Sequence, done: Prefilled, *, place: int) -> None:
        row, length = len(self._rows), sequence.num_prompt_tokens
        source_row, positions = done.sources[place]
        self._cache.put(row, done.cache, source_row=source_row, positions=positions)
        self._shifts.put(row, sequence.shift)
        components = done.next_positions.shape[:-1]
        if not self._rows and self._ahead.shape[:-1] != components:
            self._ahead = self._tokens.new_zeros((*components, self._max_rows))
        self._ahead[..., row] = done.next_positions[..., place] - length
        self._rows.append(sequence)

    def _leave(self, place: int) -> None:
        last = len(self._rows) - 1
        if place != last:
            self._cache.move(source=last, target=place)
            self._shifts.move(source=last, target=place)
            self._tokens[place] = self._tokens[last]
            self._ahead[..., place] = self._ahead[..., last]
            self._rows[place] = self._rows[last]
        self._rows.pop()


class ShiftBuffer:
    """One shift a row where the layers lie, filled when a row joins; zeros for an unsteered one.

    A pass costs the same whatever the vectors are: one addition a site, of a view of this buffer.
    """

    def __init__(self, backbone: Backbone, *, max_rows: int) -> None:
        devices = [sites.device for sites in find_sites(backbone.model)]
        # Of layers that lie together, one after the other: one buffer on a single device.
        self._buffers: list[Float[Tensor, "layers 2 rows 1 hidden"]] = [
            torch.zeros(
                (len(list(layers)), 2, max_rows, 1, backbone.hidden_size),
                dtype=backbone.dtype,
                device=device,
            )
            for device, layers in groupby(devices)
        ]
        self._scale = branch_scale(backbone.model)
        self._is_steered = [False] * max_rows
        self._views: dict[tuple[int, int], SiteShifts] = {}

    def put(self, row: int, shift: Float[Tensor, "layers 2 hidden"] | None) -> None:
        """Fill a row."""
        self._is_steered[row] = shift is not None
        if shift is None:
            for buffer in self._buffers:
                buffer[:, :, row] = 0
        else:
            parts = torch.split(shift / self._scale, [len(buffer) for buffer in self._buffers])
            for buffer, part in zip(self._buffers, parts, strict=True):
                buffer[:, :, row, 0] = part

    def move(self, *, source: int, target: int) -> None:
        """Copy a row over another one."""
        self._is_steered[target] = self._is_steered[source]
        for buffer in self._buffers:
            buffer[:, :, target] = buffer[:, :, source]

    def of(self, rows: slice) -> SiteShifts | None:
        """What to bind for a pass over these rows; none when no row is steered."""
        if not any(self._is_steered[rows]):
            return None
        key = (rows.start, rows.stop)
        if key not in self._views:
            self._views[key] = tuple(
                (layer[0, rows], layer[1, rows])
                for buffer in self._buffers
                for layer in buffer.unbind(0)
            )
        return self._views[key]
