"""Which families decode rows in flight, and which in whole batches.

A family stands in the first list because the tests compare its tokens with one-by-one `generate`;
docs/engine.md shows the same lists.
"""

from typing import Final, TypeAlias

from app.method.backbone.loading import Backbone
from app.worker.engine.batching.continuous import ContinuousBatching
from app.worker.engine.batching.masks import FULL, SLIDING, attention_kinds
from app.worker.engine.batching.static import StaticBatching

Runner: TypeAlias = ContinuousBatching | StaticBatching
"""Runs rows, on the device thread only. A pass never changes rows that it is not about."""

IN_FLIGHT: Final = frozenset(
    {
        "aya_vision",
        "cohere2_vision",
        "gemma3",
        "glm4v",
        "idefics2",
        "idefics3",
        "internvl",
        "llava",
        "llava_next",
        "llava_onevision",
        "mistral3",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_vl",
        "qwen3_vl_moe",
        "smolvlm",
    }
)
# Others, such as FlashAttention, want to see padding rather than a mask for every position.
_TAKE_MASKS: Final = frozenset({"sdpa", "eager"})


def runs_in_flight(backbone: Backbone) -> bool:
    """Whether rows of this backbone may join and leave between any two steps.

    Others keep more than keys and values from one pass to the next, count positions their own way,
    or were never tried; their rows stay in the batch that they were prefilled in, each with its own
    shift all the same.
    """
    config = backbone.model.config
    text_config = config.get_text_config()
    takes_masks = text_config._attn_implementation in _TAKE_MASKS  # noqa: SLF001 - its only name
    has_masks = attention_kinds(text_config).keys() <= {FULL, SLIDING}
    return config.model_type in IN_FLIGHT and takes_masks and has_masks


def make_runner(backbone: Backbone, *, max_rows: int) -> Runner:
    """The way of decoding that is exact for this backbone."""
    if runs_in_flight(backbone):
        return ContinuousBatching(backbone, max_rows=max_rows)
    return StaticBatching(backbone)
