"""The backbones that are measured: any checkpoint, and a random one of a size people serve on CPUs.

Knows how to make them; not what is asked of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
import transformers as hf
from torch import nn
from transformers.utils.logging import disable_progress_bar

from app.method.backbone.loading import Backbone, backbone_from_parts, load_backbone
from benchmarks.harness import LARGE, RANDOM, on_own_thread

SCALE: Final = 6.0
_PROJECTIONS: Final = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a random backbone has instead of the pocket's own sizes."""

    text: Mapping[str, int]
    vision: Mapping[str, int]
    has_tied_head: bool = True


RANDOM_SIZES: Final = {
    RANDOM: Sizes(
        text={
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 9,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 64,
        },
        vision={"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 6},
    ),
    # The geometry of SmolVLM-256M. Tokens beyond the pocket's are never asked for.
    LARGE: Sizes(
        text={
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "vocab_size": 49_280,
        },
        vision={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        has_tied_head=False,
    ),
}


def load(name: str, *, device: str, dtype: str) -> Backbone:
    """The backbone of that name, on a thread of its own lest it slow down what is measured.

    Args:
        name: `random-30m`, `random-256m`, or whatever `load_backbone` takes.
        device: As of `load_backbone`.
        dtype: As of `load_backbone`.
    """
    # Its bars would stand among ours.
    disable_progress_bar()  # type: ignore[no-untyped-call] # transformers leaves it untyped
    return on_own_thread(lambda: _load(name, device=device, dtype=dtype))


def _load(name: str, *, device: str, dtype: str) -> Backbone:
    if name not in RANDOM_SIZES:
        return load_backbone(name, device=device, dtype=dtype)
    # The pocket brings the processor, and what the names of device and dtype come to here.
    pocket = load_backbone("pocket", device=device, dtype=dtype)
    model = _random_model(pocket.model.config, sizes=RANDOM_SIZES[name])
    nn.Module.to(model, device=pocket.device, dtype=pocket.dtype)
    return backbone_from_parts(model, pocket.processor, name=name)


def without_end(backbone: Backbone) -> Backbone:
    """The same backbone with no end of a turn, so that every answer has its full length."""
    return replace(backbone, eos_token_ids=())


def folder_of(name: str, parent: Path) -> str:
    """What a server can load the backbone by; a random one is written below `parent`."""
    if name not in RANDOM_SIZES:
        return name
    folder = parent / name
    backbone = load(name, device="cpu", dtype="float32")
    model, processor = cast("Any", backbone.model), cast("Any", backbone.processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _random_model(config: Any, *, sizes: Sizes) -> hf.PreTrainedModel:  # noqa: ANN401
    """The pocket's kind of model with random weights of these sizes.

    Projections of attention are scaled up: with its initial weights a random model hardly notices
    positions, and rows that got each other's cache would still answer alike.
    """
    described = config.to_dict()
    described["text_config"] |= sizes.text
    described["vision_config"] |= sizes.vision
    described["tie_word_embeddings"] = sizes.has_tied_head
    make: Any = hf.AutoModelForImageTextToText.from_config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: hf.PreTrainedModel = make(
            type(config).from_dict(described),
            attn_implementation=getattr(config, "_attn_implementation", None) or "sdpa",
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                owner = name.split(".")[-2] if "." in name else ""
                if owner in _PROJECTIONS and parameter.ndim > 1:
                    parameter.mul_(SCALE)
    return model
