"""What the checkpoints of all families are made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers as hf
from torch import nn

from app.method.backbone.checkpoint.processors import NoVideos
from tests.fakes.checkpoints.vocabularies import CONTEXT

SIDE: Final = 56
PATCH: Final = 14
WIDTH: Final = 64
_TEMPLATES: Final = Path(__file__).parent / "templates"
# What is drawn anew, by a word in its name, and how far it spreads.
_SPREADS: Final = (
    ("newline", 0.3),
    ("input_projection_weight", 0.3),
    ("latents", 1.0),
    ("gate_attn", 0.7),
    ("alpha", 0.7),
    ("attn_gate", 0.7),
    ("mlp_gate", 0.7),
    ("embed", 0.5),
    ("position", 0.5),
)
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv", "out_proj", "proj")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A family's configuration and its processor."""

    config: Any
    processor: Any
    eos_token_ids: tuple[int, ...] = ()


def template(name: str) -> str:
    """A family's chat template, as published."""
    return (_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def pixels(name: str, **options: Any) -> Any:
    """An image processor by its published class name, without torchvision."""
    return getattr(hf, f"{name}Pil")(**options)


def without_videos(name: str) -> Any:
    """A processor class that would also read videos."""
    return type(name, (getattr(hf, name), NoVideos), {})


def decoder(tokenizer: Any, **options: Any) -> dict[str, Any]:
    """Settings of a small text decoder."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
        **options,
    }


def tower(**options: Any) -> dict[str, Any]:
    """Settings of a small vision tower."""
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        **options,
    }


def random_model(parts: Parts, *, seed: int = 0) -> Any:
    """A model whose answers depend on positions and pictures, equal for equal seeds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        make: Any = hf.AutoModelForImageTextToText.from_config
        model = make(parts.config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                _spread(name, parameter)
    model.eval()
    generation = model.generation_config
    generation.pad_token_id = parts.processor.tokenizer.pad_token_id
    if parts.eos_token_ids:
        generation.eos_token_id = list(parts.eos_token_ids)
    return model


def _spread(name: str, parameter: nn.Parameter) -> None:
    """Draws a parameter from a range in which a tiny model notices what it reads."""
    chosen = next((spread for word, spread in _SPREADS if word in name), None)
    is_gate = "gate" in name.rpartition(".")[2] and parameter.numel() <= WIDTH
    if is_gate:
        parameter.normal_(std=0.7)
    elif chosen is not None and (parameter.ndim > 1 or "embed" not in name):
        parameter.normal_(std=chosen)
    elif parameter.ndim > 1:
        attends = any(f".{owner}." in name for owner in _ATTENTION)
        parameter.normal_(std=0.25 if attends else 0.15)


def save(parts: Parts, folder: Path, *, seed: int = 0) -> Path:
    """Writes the checkpoint as its family publishes it."""
    random_model(parts, seed=seed).save_pretrained(folder)
    parts.processor.save_pretrained(folder)
    return folder
