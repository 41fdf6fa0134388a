"""Single prompts to one batch, and a batch to fewer rows.

Pure functions on the state of the stock loop; they know no backbone.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from app.method.backbone.padding import TOKEN_KEYS
from app.method.backbone.vision import join_outputs

_FEATURES: Final = "mm_encoder_outputs"
_PER_IMAGE: Final = frozenset({_FEATURES, "image_grid_thw"})
_POSITIONS: Final = "position_ids"
_NUM_AXES_OF_MROPE: Final = 3


def layout_of(inputs: Mapping[str, Any]) -> Hashable:
    """Equal for prompts that `stack_inputs` can put into one batch.

    Precomputed features fit whatever prompt has or lacks them; pixels do not.
    """
    return tuple(
        (key, value.dtype, tuple(value.shape[2 if key in TOKEN_KEYS else 1 :]))
        for key, value in sorted(inputs.items())
        if key not in _PER_IMAGE
    )


def stack_inputs(inputs: Sequence[Mapping[str, Any]], *, pad_token_id: int) -> dict[str, Any]:
    """Prompts of one layout as one batch, padded on the left.

    Inputs are keyword arguments of the backbone, each a batch of one without padding. `input_ids`
    are filled with `pad_token_id`, whatever else has one entry a token with 0.
    """
    longest = max(one["input_ids"].shape[1] for one in inputs)

    def stacked(key: str) -> object:
        values = [one[key] for one in inputs if key in one]
        if key == _FEATURES:
            return {"image": join_outputs([value["image"] for value in values])}
        if key not in TOKEN_KEYS:
            return torch.cat(values)
        filling = pad_token_id if key == "input_ids" else 0
        return torch.cat([_left_padded(value, longest, filling=filling) for value in values])

    return {key: stacked(key) for key in dict.fromkeys(key for one in inputs for key in one)}


def varlen_inputs(inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Prompts as one row of a batch, without their attention masks."""
    joined: dict[str, Any] = {"input_ids": torch.cat([one["input_ids"] for one in inputs], dim=1)}
    features = [one[_FEATURES]["image"] for one in inputs if _FEATURES in one]
    if features:
        joined[_FEATURES] = {"image": join_outputs(features)}
    return joined


def stack_shifts(
    shifts: Sequence[Float[Tensor, "layers 2 hidden"] | None],
) -> Float[Tensor, "rows layers 2 hidden"] | None:
    """One shift a row, zeros where there is none; none when no row has one."""
    first = next((shift for shift in shifts if shift is not None), None)
    if first is None:
        return None
    zeros = torch.zeros_like(first)
    return torch.stack([zeros if shift is None else shift for shift in shifts])


def select_rows(state: Mapping[str, Any], *, kept: Int[Tensor, " kept"]) -> dict[str, Any]:
    """The state with these rows only; the cache is left to its own method."""

    def selected(key: str, value: object) -> object:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        # Families whose positions have several components put those before the rows.
        axis = int(key == _POSITIONS and value.ndim == _NUM_AXES_OF_MROPE)
        return value.index_select(axis, kept)

    return {key: selected(key, value) for key, value in state.items()}


def _left_padded(
    value: Shaped[Tensor, "one tokens ..."], length: int, *, filling: int
) -> Shaped[Tensor, "one longest ..."]:
    padding = value.new_full((1, length - value.shape[1], *value.shape[2:]), filling)
    return torch.cat([padding, value], dim=1)
