"""What tiny models of all families have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
import transformers as hf
from torch import Tensor

LAYERS: Final = 3
HIDDEN: Final = 32
VOCAB: Final = 96
IMAGE_TOKEN: Final = 90

TEXT: Final[dict[str, Any]] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
# Its layers scale what a branch adds, its model the embeddings and the logits.
GRANITE: Final[dict[str, Any]] = {
    **TEXT,
    "model_type": "granite",
    "residual_multiplier": 0.22,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.5,
    "logits_scaling": 2.0,
}
# Beside TEXT: its layers scale what a branch adds, which no setting of a known name tells.
MINICPM3: Final[dict[str, Any]] = {
    "model_type": "minicpm3",
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
VISION: Final[dict[str, Any]] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to build one family's model and the image part of its inputs."""

    name: str
    config: Callable[[], hf.PreTrainedConfig]
    images: Callable[[int, torch.Generator], dict[str, Tensor]]
    has_placeholders: bool = True
    attention: str = "sdpa"
    token_types: tuple[str, ...] = ()


def pixels(*shape: int) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    def make(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"pixel_values": torch.randn((rows, *shape), generator=generator)}

    return make


def sized_pixels(*shape: int) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    def make(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        size = shape[-2:]
        pixels = torch.randn((rows, *shape), generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([size] * rows)}

    return make


def qwen_pixels(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    grid = torch.tensor([[1, 4, 4]] * rows)
    patches = torch.randn((rows * 16, 3 * 2 * 4 * 4), generator=generator)
    return {"pixel_values": patches, "image_grid_thw": grid}


def mllama_pixels(rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.randn((rows, 1, 1, 3, 16, 16), generator=generator),
        "aspect_ratio_ids": torch.ones((rows, 1), dtype=torch.long),
        "aspect_ratio_mask": torch.ones((rows, 1, 1), dtype=torch.long),
    }
