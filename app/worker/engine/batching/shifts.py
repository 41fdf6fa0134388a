"""The shifts of the rows that run, on the device, filled once when a row joins.

A pass costs the same whatever the vectors are: one addition a site, of a view of this buffer.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.backbone.loading import Backbone
from app.method.steering.injection import SiteShifts


class ShiftBuffer:
    """One shift a row; zeros for a row that is not steered."""

    def __init__(self, backbone: Backbone, *, max_rows: int) -> None:
        shape = (backbone.num_layers, 2, max_rows, 1, backbone.hidden_size)
        self._buffer: Float[Tensor, "layers 2 rows 1 hidden"] = torch.zeros(
            shape, dtype=backbone.dtype, device=backbone.device
        )
        self._is_steered = [False] * max_rows
        self._views: dict[tuple[int, int], SiteShifts] = {}

    def put(self, row: int, shift: Float[Tensor, "layers 2 hidden"] | None) -> None:
        """Fill a row."""
        self._is_steered[row] = shift is not None
        if shift is None:
            self._buffer[:, :, row] = 0
        else:
            self._buffer[:, :, row, 0] = shift

    def move(self, *, source: int, target: int) -> None:
        """Copy a row over another one."""
        self._is_steered[target] = self._is_steered[source]
        self._buffer[:, :, target] = self._buffer[:, :, source]

    def of(self, rows: slice) -> SiteShifts | None:
        """What to bind for a pass over these rows; none when no row is steered."""
        if not any(self._is_steered[rows]):
            return None
        key = (rows.start, rows.stop)
        if key not in self._views:
            self._views[key] = tuple(
                (layer[0, rows], layer[1, rows]) for layer in self._buffer.unbind(0)
            )
        return self._views[key]
