"""How to configure tiny models of the Gemma families and of PaliGemma."""

from collections.abc import Callable
from typing import Any, Final

import torch
import transformers as hf
from torch import Tensor

from tests.fakes.models.family_sizes import HIDDEN, IMAGE_TOKEN, TEXT, VISION, VOCAB


def gemma3_config() -> hf.PreTrainedConfig:
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    return hf.Gemma3Config(
        text_config={
            **TEXT,
            "head_dim": 8,
            "layer_types": layers,
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
        },
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=IMAGE_TOKEN,
        tie_word_embeddings=False,
    )


def gemma4_patches(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    return {
        "pixel_values": torch.rand((rows, 16, 3 * 4 * 4), generator=generator),
        "image_position_ids": grid.expand(rows, 16, 2).clone(),
    }


def gemma4_config(**text: Any) -> Callable[[], hf.PreTrainedConfig]:  # noqa: ANN401 - settings
    def make() -> hf.PreTrainedConfig:
        tower = {key: value for key, value in VISION.items() if key != "image_size"}
        return hf.Gemma4Config(
            text_config={
                **TEXT,
                "head_dim": 8,
                "global_head_dim": 16,
                "layer_types": ["sliding_attention", "full_attention", "full_attention"],
                "sliding_window": 6,
                "use_bidirectional_attention": "vision",
                "hidden_size_per_layer_input": 0,
                **text,
            },
            vision_config={
                **tower,
                "num_key_value_heads": 2,
                "head_dim": 12,
                "position_embedding_size": 4,
                "pooling_kernel_size": 2,
            },
            audio_config=None,
            image_token_id=IMAGE_TOKEN,
            video_token_id=IMAGE_TOKEN + 1,
            audio_token_id=IMAGE_TOKEN + 2,
            tie_word_embeddings=False,
        )

    return make


GEMMA4: Final[dict[str, dict[str, Any]]] = {
    "gemma4": {
        "hidden_size_per_layer_input": 4,
        "vocab_size_per_layer_input": VOCAB,
        "num_kv_shared_layers": 1,
    },
    "gemma4_experts": {
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 16,
    },
}


def paligemma_config(text_kind: str) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        return hf.PaliGemmaConfig(
            text_config={"model_type": text_kind, **TEXT, "head_dim": 8},
            vision_config={
                "model_type": "siglip_vision_model",
                **VISION,
                "projection_dim": HIDDEN,
            },
            projection_dim=HIDDEN,
            image_token_index=IMAGE_TOKEN,
            tie_word_embeddings=False,
        )

    return make
