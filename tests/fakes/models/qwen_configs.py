"""How to configure tiny models of the Qwen families, and of GLM-4V, which is built like them."""

from collections.abc import Callable
from typing import Any, Final

import transformers as hf

from tests.fakes.models.family_sizes import HIDDEN, IMAGE_TOKEN, TEXT


def qwen_config(
    kind: type[Any],
    vision: dict[str, Any],
    sections: list[int],
    **text: int,
) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
        config: hf.PreTrainedConfig = kind(
            text_config={**TEXT, "rope_parameters": rope, "head_dim": 8, **text},
            vision_config={"in_channels": 3, "patch_size": 4, "depth": 2, "num_heads": 2, **vision},
            image_token_id=IMAGE_TOKEN,
            video_token_id=IMAGE_TOKEN + 1,
            vision_start_token_id=IMAGE_TOKEN + 2,
            vision_end_token_id=IMAGE_TOKEN + 3,
            tie_word_embeddings=False,
        )
        return config

    return make


QWEN_VISION: Final[dict[str, Any]] = {
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "hidden_size": 24,
    "intermediate_size": 32,
    "out_hidden_size": HIDDEN,
}
QWEN3_VISION: Final[dict[str, Any]] = {
    **QWEN_VISION,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
