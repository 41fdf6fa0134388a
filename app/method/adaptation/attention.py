"""Attention with something added to each layer: virtual keys, or gated vectors of heads.

It goes through the attention interface of transformers, so masks, caches and padding are the
library's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from app.core.errors import UnsupportedBackboneError
from app.method.backbone.loading import Backbone
from app.method.steering.sites import find_decoder

_NAME: Final = "vlibrary-adapted"

Heads: TypeAlias = Float[Tensor, "rows _ _ _"]
"""Rows, heads, tokens and width or what tokens attend to."""
Attend: TypeAlias = Callable[[int, Heads, Heads, Heads, Tensor | None, float], Heads]
"""From layer, queries, keys, values, additive mask and scale to what the heads give out."""

_active: ContextVar[Attend] = ContextVar("active attention")


def repeat_heads(values: Heads, count: int) -> Heads:
    """Each head of keys or values as often as queries share it, `count` heads in all."""
    return values.repeat_interleave(count // values.shape[1], dim=1)


def scores_of(query: Heads, key: Heads, *, mask: Tensor | None, scale: float) -> Heads:
    """Masked logits of attention in float32."""
    keys = repeat_heads(key, query.shape[1])
    scores = (query @ keys.transpose(-1, -2)).float() * scale
    return scores if mask is None else scores + mask[..., : scores.shape[-1]].float()


def _adapted(  # noqa: PLR0917 - the interface of transformers
    module: nn.Module,
    query: Heads,
    key: Heads,
    value: Heads,
    attention_mask: Tensor | None,
    scaling: float = 1.0,
    **others: object,
) -> tuple[Tensor, None]:
    capped = others.get("softcap")
    if capped is not None:
        raise UnsupportedBackboneError(
            f"{type(module).__name__} cannot be adapted: wanted plain attention, found capped "
            "logits"
        )
    layer = int(cast("Any", module).layer_idx)
    found = _active.get()(layer, query, key, value, attention_mask, scaling)
    return found.to(query.dtype).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _adapted)
AttentionMaskInterface.register(_NAME, eager_mask)


@contextmanager
def attend_with(backbone: Backbone, attend: Attend) -> Iterator[None]:
    """Within the block every layer of the text decoder attends as told."""
    config = cast("Any", find_decoder(backbone.model)).config
    before = config._attn_implementation  # noqa: SLF001 - the library has no other switch
    token = _active.set(attend)
    config._attn_implementation = _NAME  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = before  # noqa: SLF001
        _active.reset(token)


def attend_virtually(
    keys: Float[Tensor, "layers heads virtual width"],
    values: Float[Tensor, "layers heads virtual width"],
) -> Attend:
    """Attention that every token also pays to virtual keys, which stand before all others.

    Args:
        keys: As they stand after the rotation; as many heads as the layer's keys have, or as its
            queries have.
        values: What they stand for.
    """

    def attend(  # noqa: PLR0917 - the order of the alias
        layer: int, query: Heads, key: Heads, value: Heads, mask: Tensor | None, scale: float
    ) -> Heads:
        rows = len(query)
        extra_keys = keys[layer].to(query).expand(rows, -1, -1, -1)
        extra_values = values[layer].to(query).expand(rows, -1, -1, -1)
        virtual = scores_of(query, extra_keys, mask=None, scale=scale)
        scores = torch.cat([virtual, scores_of(query, key, mask=mask, scale=scale)], dim=-1)
        shares = scores.softmax(-1).to(query.dtype)
        count = query.shape[1]
        both = [repeat_heads(extra_values, count), repeat_heads(value, count)]
        return shares @ torch.cat(both, dim=2)

    return attend


def attend_gated(
    vectors: Float[Tensor, "layers heads width"],
    gates: Float[Tensor, "layers heads width"],
    biases: Float[Tensor, "layers heads"],
) -> Attend:
    """Attention plus a vector of each head, as much of it as a gate says.

    The gate is the share that keys of mass exp(q . gate + bias) would have beside the real ones,
    of which only those count that the mask lets a token see.

    Source: MimIC, Jiang et al. (2025), arXiv 2504.08851.
    """

    def attend(  # noqa: PLR0917 - the order of the alias
        layer: int, query: Heads, key: Heads, value: Heads, mask: Tensor | None, scale: float
    ) -> Heads:
        scores = scores_of(query, key, mask=mask, scale=scale)
        mass = scores.logsumexp(-1)
        vector, gate, bias = (one[layer].to(query.device) for one in (vectors, gates, biases))
        virtual = torch.einsum("rhtw,hw->rht", query.float(), gate)
        share = (virtual + bias[:, None] - mass).sigmoid()
        found = scores.softmax(-1).to(query.dtype) @ repeat_heads(value, query.shape[1])
        return found + (share[..., None] * vector[:, None]).to(query.dtype)

    return attend
