"""What a token may look at: everything that its own row has written up to it.

Pure functions of positions and of what kinds of attention a backbone has. Masks are added to the
scores: eager attention takes no others, and the others turn a chosen mask into an added one again
in every layer.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"

Mask = Float[Tensor, "rows 1 queries positions"]


Kinds = Mapping[str, int | None]
"""Kinds of attention among the decoder layers, each with the positions that it sees, if bounded."""


def attention_kinds(config: Any) -> Kinds:  # noqa: ANN401 - each family has its own class
    """What the layers of a text decoder with this configuration want."""
    window = getattr(config, "sliding_window", None)
    names = getattr(config, "layer_types", None) or [FULL if window is None else SLIDING]
    return {name: window or 0 if name == SLIDING else None for name in names}


def decode_masks(
    kinds: Kinds,
    positions: Int[Tensor, " rows"],
    *,
    reach: int,
    dtype: torch.dtype,
) -> Mask | dict[str, Mask]:
    """The mask of a pass with one new token a row, or one mask a kind where they differ.

    Each row's new token is written at its position; `reach` positions are looked at, those of the
    longest row. The dtype is that of the backbone's scores.
    """
    places = torch.arange(reach, device=positions.device)
    ago = (positions[:, None] - places)[:, None, None]
    return _masks(kinds, ago >= 0, ago=ago, dtype=dtype)


def varlen_masks(
    kinds: Kinds, token_rows: Int[Tensor, " tokens"], *, dtype: torch.dtype
) -> Mask | dict[str, Mask]:
    """The same of a pass over prompts that lie end to end in one row of the batch."""
    places = torch.arange(len(token_rows), device=token_rows.device)
    ago = places[:, None] - places
    is_seen = (ago >= 0) & (token_rows[:, None] == token_rows)
    return _masks(kinds, is_seen[None, None], ago=ago[None, None], dtype=dtype)


def _masks(
    kinds: Kinds,
    is_seen: Bool[Tensor, "rows 1 queries positions"],
    *,
    ago: Int[Tensor, "rows 1 queries positions"],
    dtype: torch.dtype,
) -> Mask | dict[str, Mask]:
    """One mask, or one a kind where they differ; `ago` is how far back a position lies."""
    masks = {
        kind: _added(is_seen if window is None else is_seen & (ago < window), dtype=dtype)
        for kind, window in kinds.items()
    }
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _added(is_seen: Bool[Tensor, "rows 1 queries positions"], *, dtype: torch.dtype) -> Mask:
    lowest = torch.finfo(dtype).min
    return torch.zeros(is_seen.shape, dtype=dtype, device=is_seen.device).masked_fill(
        ~is_seen, lowest
    )
