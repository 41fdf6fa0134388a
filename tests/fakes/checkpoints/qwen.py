"""Qwen's vision-language families."""

from typing import Any, Final

import transformers as hf

from tests.fakes.checkpoints.parts import (
    PATCH,
    WIDTH,
    Parts,
    decoder,
    pixels,
    template,
    without_videos,
)
from tests.fakes.checkpoints.vocabularies import qwen2

_TOKENS: Final = (
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_FIRST_PIXELS: Final = {
    "min_pixels": 56 * 56,
    "max_pixels": 112 * 112,
    "patch_size": PATCH,
    "merge_size": 2,
    "temporal_patch_size": 2,
}


def _settings(
    tokenizer: Any,
    vision: dict[str, Any],
    sections: list[int],
    **rope: bool,
) -> dict[str, Any]:
    ids = tokenizer.convert_tokens_to_ids
    positions = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections, **rope}
    return {
        "text_config": decoder(tokenizer, rope_parameters=positions, head_dim=16),
        "vision_config": {
            "in_channels": 3,
            "patch_size": PATCH,
            "depth": 2,
            "num_heads": 2,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **vision,
        },
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
        "tie_word_embeddings": False,
    }


def qwen2_vl() -> Parts:
    tokenizer = qwen2(*_TOKENS)
    processor = without_videos("Qwen2VLProcessor")(
        pixels("Qwen2VLImageProcessor", **_FIRST_PIXELS),
        tokenizer,
        chat_template=template("qwen2_vl"),
    )
    vision = {"embed_dim": 32, "hidden_size": WIDTH}
    make: Any = hf.Qwen2VLConfig
    return Parts(config=make(**_settings(tokenizer, vision, [2, 3, 3])), processor=processor)


def qwen2_5_vl() -> Parts:
    tokenizer = qwen2(*_TOKENS)
    processor = without_videos("Qwen2_5_VLProcessor")(
        pixels("Qwen2VLImageProcessor", **_FIRST_PIXELS),
        tokenizer,
        chat_template=template("qwen2_vl"),
    )
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": WIDTH,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    make: Any = hf.Qwen2_5_VLConfig
    return Parts(config=make(**_settings(tokenizer, vision, [2, 3, 3])), processor=processor)


def _qwen3(make: Any, **text: int) -> Parts:
    tokenizer = qwen2(*_TOKENS)
    half = [0.5] * 3
    processor = without_videos("Qwen3VLProcessor")(
        pixels(
            "Qwen2VLImageProcessor",
            size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128},
            patch_size=16,
            merge_size=2,
            temporal_patch_size=2,
            image_mean=half,
            image_std=half,
        ),
        tokenizer,
        chat_template=template("qwen3_vl"),
    )
    vision = {
        "patch_size": 16,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    settings = _settings(tokenizer, vision, [4, 2, 2], mrope_interleaved=True)
    settings["text_config"] |= text
    return Parts(config=make(**settings), processor=processor)


def qwen3_vl() -> Parts:
    return _qwen3(hf.Qwen3VLConfig)


def qwen3_vl_moe() -> Parts:
    return _qwen3(
        hf.Qwen3VLMoeConfig, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
    )
