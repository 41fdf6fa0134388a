"""What a row's new token may look at: everything that its own row has written.

Pure functions of positions and of what kinds of attention a backbone has.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"

Mask = Bool[Tensor, "rows 1 1 positions"] | Float[Tensor, "rows 1 1 positions"]


@dataclass(frozen=True, kw_only=True)
class AttentionKinds:
    """Which masks the decoder layers want.

    Attributes:
        kinds: Kinds of attention among the layers.
        window: Positions that sliding attention sees, the token's own included.
        is_additive: Whether masks are added to the scores rather than chosen by.
    """

    kinds: frozenset[str]
    window: int
    is_additive: bool

    @property
    def are_known(self) -> bool:
        """Whether there is a mask for each of them."""
        return self.kinds <= {FULL, SLIDING}


def attention_kinds(config: Any) -> AttentionKinds:  # noqa: ANN401 - each family has its own class
    """What the layers of a text decoder with this configuration want."""
    window = getattr(config, "sliding_window", None)
    uniform = [FULL if window is None else SLIDING]
    return AttentionKinds(
        kinds=frozenset(getattr(config, "layer_types", None) or uniform),
        window=window or 0,
        # Eager attention adds whatever it is given: a truth value would count as 0 or 1.
        is_additive=config._attn_implementation == "eager",  # noqa: SLF001 - its only name
    )


def decode_masks(
    kinds: AttentionKinds,
    positions: Int[Tensor, " rows"],
    *,
    reach: int,
    dtype: torch.dtype,
) -> Mask | dict[str, Mask]:
    """The mask of a pass with one new token a row, or one mask a kind where they differ.

    Args:
        kinds: What the layers want.
        positions: Where each row's new token is written.
        reach: Positions that are looked at, of the longest row.
        dtype: Of the backbone's scores.
    """
    places = torch.arange(reach, device=positions.device)[None]
    written = places <= positions[:, None]
    masks: dict[str, Mask] = {}
    if FULL in kinds.kinds:
        masks[FULL] = written
    if SLIDING in kinds.kinds:
        masks[SLIDING] = written & (places > positions[:, None] - kinds.window)
    shaped = {kind: _shaped(mask, kinds, dtype=dtype) for kind, mask in masks.items()}
    return shaped if len(shaped) > 1 else next(iter(shaped.values()))


def _shaped(
    is_seen: Bool[Tensor, "rows positions"], kinds: AttentionKinds, *, dtype: torch.dtype
) -> Mask:
    mask = is_seen[:, None, None, :]
    if not kinds.is_additive:
        return mask
    lowest = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, lowest)
