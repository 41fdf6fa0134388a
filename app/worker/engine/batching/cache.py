"""Keys and values of rows that are at different places: every row has its own next position.

All tensors belong to the device thread, which makes and changes them in one gradient mode.
"""

from contextlib import suppress
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Room grows in steps of so many positions, or of this share of what is needed: attention reads all
# rows in every pass, which takes twice as long where much unused room lies between them.
STEP_POSITIONS: Final = 8
SPARE_SHARE: Final = 1 / 16
# Room is given back when it is so many times what is needed.
SPARE_FACTOR: Final = 2

KeysOrValues = Float[Tensor, "rows heads positions width"]


class RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # untyped in transformers
    """One decoder layer's keys and values, rows aligned at their first position.

    `like` are keys and values of one row, for their shapes, device and dtype.
    """

    def __init__(
        self, cache: "RowCache", *, like: tuple[KeysOrValues, KeysOrValues], max_rows: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self._cache = cache
        self._keys, self._values = (
            states.new_zeros((max_rows, states.shape[1], STEP_POSITIONS, states.shape[3]))
            for states in like
        )

    def lazy_initialization(self, _keys: KeysOrValues, _values: KeysOrValues) -> None:
        """There is nothing left to do."""

    @property
    def room(self) -> int:
        """Positions that a row can have."""
        return self._keys.shape[2]

    def resize(self, room: int) -> None:
        """Give every row room for this many positions, keeping what fits."""
        self._keys, self._values = _resized(self._keys, room), _resized(self._values, room)

    def put(self, row: int, keys: KeysOrValues, values: KeysOrValues, *, written: int) -> None:
        """Fill a row with the states of one sequence, from its first position on.

        What earlier ones have `written` behind them becomes zero: what is masked has no weight, but
        a number that is none would be none times zero.
        """
        length = keys.shape[2]
        for kept, filling in ((self._keys, keys), (self._values, values)):
            kept[row, :, :length] = filling[0]
            kept[row, :, length:written] = 0

    def states(self, row: int, *, length: int) -> tuple[KeysOrValues, KeysOrValues]:
        """A row's first positions."""
        which = slice(row, row + 1)
        return self._keys[which, :, :length], self._values[which, :, :length]

    def update(
        self, key_states: KeysOrValues, value_states: KeysOrValues, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Write one position of every active row; return all that these rows may look at.

        Writing the same position again replaces it, so a failed pass can be repeated.
        """
        rows, reach = self._cache.active, self._cache.reach
        places = self._cache.places(
            heads=self._keys.shape[1], room=self.room, device=self._keys.device
        )
        for kept, states in ((self._keys, key_states), (self._values, value_states)):
            kept.flatten(0, 2).index_copy_(0, places, states.flatten(0, 2))
        return self._keys[rows, :, :reach], self._values[rows, :, :reach]

    def get_mask_sizes(self, _query_length: int) -> tuple[int, int]:
        """How many positions a mask covers, and where it begins."""
        return self._cache.reach, 0

    def get_seq_length(self) -> int:
        """Positions before the one that is written; of the longest active row."""
        return self._cache.reach - 1

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


def _resized(kept: KeysOrValues, room: int) -> Float[Tensor, "rows heads room width"]:
    common = min(room, kept.shape[2])
    resized = kept.new_zeros((*kept.shape[:2], room, kept.shape[3]))
    resized[:, :, :common] = kept[:, :, :common]
    return resized


def room_for(num_positions: int) -> int:
    """Room for so many positions and a few more."""
    wanted = max(1, num_positions + int(num_positions * SPARE_SHARE))
    return -(-wanted // STEP_POSITIONS) * STEP_POSITIONS


class RowCache:
    """Keys and values of all layers for a fixed number of rows, made when the first row comes.

    Attributes:
        next: Where each row writes its next position.
        active: The rows that the pass at hand is about.
        reach: Positions of the longest of them, the one that is written included.
        as_stock: The same as the cache that transformers' models take.

    Args:
        device: Of the positions; keys and values live where the backbone makes them.
    """

    def __init__(self, *, max_rows: int, device: torch.device) -> None:
        self._max_rows = max_rows
        self._lengths = [0] * max_rows
        self._indices = torch.arange(max_rows, device=device)
        self._places: dict[tuple[int, int, torch.device], Int[Tensor, " active_heads"]] = {}
        self._layers: list[RowLayer] = []
        self.next: Int[Tensor, " rows"] = torch.zeros(max_rows, dtype=torch.long, device=device)
        self.active = slice(0, 0)
        self.reach = 0
        self.as_stock = Cache(layers=[])

    def select(self, rows: slice) -> None:
        """Say which rows the next pass writes one position of."""
        self.active = rows
        self._places = {}
        self.reach = max(self._lengths[rows]) + 1

    def advance(self, rows: slice) -> None:
        """Note that these rows keep the position that was written."""
        self.next[rows] += 1
        for row in range(rows.start, rows.stop):
            self._lengths[row] += 1

    def places(
        self, *, heads: int, room: int, device: torch.device
    ) -> Int[Tensor, " active_heads"]:
        """Where they write, when all heads of all rows lie end to end; alike in most layers."""
        key = (heads, room, device)
        if key not in self._places:
            own = torch.arange(heads, device=self._indices.device)
            starts = (self._indices[self.active] * heads)[:, None] + own
            places = starts * room + self.next[self.active][:, None]
            self._places[key] = places.flatten().to(device)
        return self._places[key]

    @property
    def room(self) -> int:
        """Positions that every row has room for."""
        return min((layer.room for layer in self._layers), default=0)

    def reserve(self, num_positions: int) -> None:
        """Give every row room for this many positions; all layers get it, or none does."""
        before, wanted = self.room, room_for(num_positions)
        if num_positions <= before:
            return
        try:
            for layer in self._layers:
                layer.resize(wanted)
        except Exception:
            for layer in self._layers:
                if layer.room > before:
                    layer.resize(before)
            raise

    def fit(self, num_rows: int) -> None:
        """Give memory back when the first rows, which are left, need far less than there is."""
        needed = room_for(max(self._lengths[:num_rows], default=0) + 1)
        if needed > self.room // SPARE_FACTOR:
            return
        # A copy needs room itself; where there is none, the rows keep what they have.
        with suppress(torch.OutOfMemoryError, MemoryError):
            for layer in self._layers:
                layer.resize(needed)

    def put(self, row: int, source: Cache, *, source_row: int, positions: slice) -> None:
        """Take over positions of a row of a cache that a prefill filled.

        They are those of one prompt, from its first to its last token.
        """
        which = slice(source_row, source_row + 1)
        length = positions.stop - positions.start
        # Layers of the stock cache are typed as if they could be empty.
        filled: list[Any] = list(source.layers)
        states = [
            (layer.keys[which, :, positions], layer.values[which, :, positions]) for layer in filled
        ]
        if not self._layers:
            self._layers = [RowLayer(self, like=like, max_rows=self._max_rows) for like in states]
            self.as_stock = Cache(layers=list(self._layers))
        self.reserve(length)
        written = self._written(row)
        # So much is to be cleared the next time, should one of the layers fail.
        self._set_length(row, max(length, written) - 1)
        for layer, (keys, values) in zip(self._layers, states, strict=True):
            layer.put(row, keys, values, written=written)
        # As after any pass, the position written last counts once its token has been taken.
        self._set_length(row, length - 1)

    def move(self, *, source: int, target: int) -> None:
        """Copy a row over another one."""
        length, written = self._lengths[source], self._written(target)
        for layer in self._layers:
            layer.put(target, *layer.states(source, length=length), written=written)
        self._set_length(target, length)

    def _written(self, row: int) -> int:
        """Positions that may hold anything but zero: the row's, and one of a pass that failed."""
        return self._lengths[row] + 1

    def _set_length(self, row: int, length: int) -> None:
        """Note that a row holds this many positions."""
        self._lengths[row] = length
        self.next[row] = length
