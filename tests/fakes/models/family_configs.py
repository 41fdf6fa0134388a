"""How to configure a tiny model of every family that must work, and pictures for it.

Built from the families' own configuration classes, so that layouts, masks and position rules are
the real ones.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import transformers as hf

from tests.fakes.models.family_sizes import (
    GRANITE,
    HIDDEN,
    IMAGE_TOKEN,
    LAYERS,
    TEXT,
    VISION,
    Family,
    mllama_pixels,
    pixels,
    qwen_pixels,
    sized_pixels,
)
from tests.fakes.models.gemma_configs import (
    GEMMA4,
    gemma3_config,
    gemma4_config,
    gemma4_patches,
    paligemma_config,
)
from tests.fakes.models.qwen_configs import QWEN3_VISION, QWEN_VISION, qwen_config


def _idefics_config() -> hf.PreTrainedConfig:
    text = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
    vision = {**VISION, "embed_dim": 24}
    del vision["hidden_size"]
    return hf.IdeficsConfig(
        **text,
        additional_vocab_size=0,
        alpha_initializer="ones",
        cross_layer_interval=LAYERS,
        use_resampler=False,
        vision_config=vision,
    )


def _idefics2_config() -> hf.PreTrainedConfig:
    perceiver = {
        "hidden_size": HIDDEN,
        "resampler_n_latents": 3,
        "resampler_depth": 1,
        "resampler_n_heads": 2,
        "num_key_value_heads": 1,
        "resampler_head_dim": 8,
    }
    return hf.Idefics2Config(
        text_config={"model_type": "mistral", **TEXT, "sliding_window": None},
        vision_config=VISION,
        perceiver_config=perceiver,
        image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=False,
    )


def _idefics3_like(kind: type[Any]) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        config: hf.PreTrainedConfig = kind(
            text_config={"model_type": "llama", **TEXT},
            vision_config=VISION,
            image_token_id=IMAGE_TOKEN,
            scale_factor=2,
            tie_word_embeddings=False,
            pad_token_id=0,
        )
        return config

    return make


def _llava_like(
    kind: type[Any], *, text: Mapping[str, Any] = TEXT, **extra: list[list[int]]
) -> Callable[[], hf.PreTrainedConfig]:
    def make() -> hf.PreTrainedConfig:
        config: hf.PreTrainedConfig = kind(
            text_config={"model_type": "llama", **text},
            vision_config={"model_type": "clip_vision_model", **VISION},
            image_token_index=IMAGE_TOKEN,
            tie_word_embeddings=False,
            **extra,
        )
        return config

    return make


def _onevision_config() -> hf.PreTrainedConfig:
    return hf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **TEXT},
        vision_config={"model_type": "siglip_vision_model", **VISION},
        image_token_index=IMAGE_TOKEN,
        video_token_index=IMAGE_TOKEN + 1,
        image_grid_pinpoints=[[16, 16]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )


def _internvl_config() -> hf.PreTrainedConfig:
    return hf.InternVLConfig(
        text_config={"model_type": "qwen2", **TEXT},
        vision_config={**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
        image_token_id=IMAGE_TOKEN,
        image_seq_length=4,
        tie_word_embeddings=False,
    )


def _mistral3_config() -> hf.PreTrainedConfig:
    return hf.Mistral3Config(
        text_config={"model_type": "mistral", **TEXT, "head_dim": 8, "sliding_window": None},
        vision_config={"model_type": "pixtral", **VISION, "head_dim": 12},
        image_token_index=IMAGE_TOKEN,
        spatial_merge_size=2,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


_COHERE: Final[dict[str, Any]] = {
    "text_config": {
        "model_type": "cohere2", **TEXT, "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "vision_config": {"model_type": "siglip_vision_model", **VISION},
    "downsample_factor": 2,
    "tie_word_embeddings": False,
}  # fmt: skip


def _cohere_config() -> hf.PreTrainedConfig:
    return hf.Cohere2VisionConfig(
        **_COHERE, alignment_intermediate_size=48, image_token_id=IMAGE_TOKEN
    )


def _aya_config() -> hf.PreTrainedConfig:
    return hf.AyaVisionConfig(**_COHERE, adapter_layer_norm_eps=1e-6, image_token_index=IMAGE_TOKEN)


def _mllama_config() -> hf.PreTrainedConfig:
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
        "max_num_tiles": 1,
        "supported_aspect_ratios": [[1, 1]],
        "intermediate_layers_indices": [0],
        "vision_output_dim": 48,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    return hf.MllamaConfig(
        text_config={**TEXT, "rope_parameters": rope, "cross_attention_layers": [1]},
        vision_config=vision,
        image_token_index=IMAGE_TOKEN,
    )


FAMILIES: Final = {
    family.name: family
    for family in (
        Family(
            name="idefics",
            config=_idefics_config,
            images=pixels(1, 3, 16, 16),
            has_placeholders=False,
        ),
        Family(name="idefics2", config=_idefics2_config, images=pixels(1, 3, 16, 16)),
        Family(
            name="idefics3",
            config=_idefics3_like(hf.Idefics3Config),
            images=pixels(1, 3, 16, 16),
        ),
        Family(
            name="smolvlm", config=_idefics3_like(hf.SmolVLMConfig), images=pixels(1, 3, 16, 16)
        ),
        Family(name="llava", config=_llava_like(hf.LlavaConfig), images=pixels(3, 16, 16)),
        Family(
            name="llava_next",
            config=_llava_like(hf.LlavaNextConfig, image_grid_pinpoints=[[16, 16]]),
            images=sized_pixels(2, 3, 16, 16),
        ),
        Family(
            name="granite_vision",
            config=_llava_like(hf.LlavaNextConfig, text=GRANITE, image_grid_pinpoints=[[16, 16]]),
            images=sized_pixels(2, 3, 16, 16),
        ),
        Family(
            name="llava_onevision",
            config=_onevision_config,
            images=sized_pixels(2, 3, 16, 16),
        ),
        Family(
            name="qwen2_vl",
            config=qwen_config(
                hf.Qwen2VLConfig,
                {
                    "spatial_merge_size": 2,
                    "temporal_patch_size": 2,
                    "embed_dim": 24,
                    "hidden_size": HIDDEN,
                },
                [1, 1, 2],
            ),
            images=qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(
            name="qwen2_5_vl",
            config=qwen_config(
                hf.Qwen2_5_VLConfig,
                {**QWEN_VISION, "window_size": 8, "fullatt_block_indexes": [1]},
                [1, 1, 2],
            ),
            images=qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(
            name="qwen3_vl",
            config=qwen_config(
                hf.Qwen3VLConfig,
                QWEN3_VISION,
                [2, 1, 1],
            ),
            images=qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(
            name="qwen3_vl_moe",
            config=qwen_config(
                hf.Qwen3VLMoeConfig,
                QWEN3_VISION,
                [2, 1, 1],
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=16,
            ),
            images=qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(
            name="glm4v",
            config=qwen_config(
                hf.Glm4vConfig, {**QWEN_VISION, "hidden_size": 24, "image_size": 16}, [1, 1, 2]
            ),
            images=qwen_pixels,
            token_types=("mm_token_type_ids",),
        ),
        Family(name="cohere2_vision", config=_cohere_config, images=pixels(3, 16, 16)),
        Family(name="aya_vision", config=_aya_config, images=pixels(3, 16, 16)),
        Family(name="internvl", config=_internvl_config, images=pixels(3, 16, 16)),
        Family(
            name="gemma3",
            config=gemma3_config,
            images=pixels(3, 16, 16),
            token_types=("token_type_ids",),
        ),
        *(
            Family(
                name=name,
                config=gemma4_config(**text),
                images=gemma4_patches,
                token_types=("mm_token_type_ids",),
            )
            for name, text in GEMMA4.items()
        ),
        Family(
            name="paligemma",
            config=paligemma_config("gemma"),
            images=pixels(3, 16, 16),
            token_types=("token_type_ids",),
        ),
        Family(
            name="paligemma2",
            config=paligemma_config("gemma2"),
            attention="eager",
            images=pixels(3, 16, 16),
            token_types=("token_type_ids",),
        ),
        Family(name="mistral3", config=_mistral3_config, images=sized_pixels(3, 16, 16)),
        Family(name="mllama", config=_mllama_config, images=mllama_pixels, has_placeholders=False),
    )
}
