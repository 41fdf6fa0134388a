"""Tiny random models of every family that must work, with inputs for them.

Projections of queries, keys, values and outputs are scaled up: with the initial weights a tiny
model hardly notices positions, and a wrong mask or position would pass.
"""

from typing import Any, Final

import torch
import transformers as hf
from torch import Tensor, nn

from tests.fakes.models.family_configs import FAMILIES
from tests.fakes.models.family_sizes import IMAGE_TOKEN

SCALE: Final = 6.0
_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")


def tiny_model(name: str, *, seed: int = 0, attention: str | None = None) -> hf.PreTrainedModel:
    """A random model of a family in evaluation mode, frozen, equal for equal seeds."""
    family = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        make: Any = hf.AutoModelForImageTextToText.from_config
        model: hf.PreTrainedModel = make(
            family.config(), attn_implementation=attention or family.attention
        )
        sharpen(model)
    model.train(mode=False)
    model.requires_grad_(requires_grad=False)
    generation: Any = model.generation_config
    generation.eos_token_id, generation.pad_token_id = None, 0
    return model


def sharpen(model: nn.Module) -> None:
    """Scales attention up and fills what is initially zero, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            owner = name.split(".")[-2] if "." in name else ""
            if owner in _PROJECTIONS and parameter.ndim > 1:
                parameter.mul_(SCALE)
            elif name.endswith(("mm_input_projection_weight", "gate", "image_newline")):
                parameter.normal_(std=0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.fill_(0.8)


def tiny_inputs(name: str, *, rows: int = 2, seed: int = 0, length: int = 7) -> dict[str, Tensor]:
    """Inputs with one image a row, of equal length: a few tokens, the image, then the text."""
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(seed)
    images = family.images(rows, generator)
    text = torch.randint(3, IMAGE_TOKEN, (rows, length), generator=generator)
    ids = text
    if family.has_placeholders:
        count = _num_image_tokens(name, images) // rows
        placeholders = torch.full((rows, count), IMAGE_TOKEN)
        ids = torch.cat([text[:, :2], placeholders, text[:, 2:]], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images}
    for key in family.token_types:
        inputs[key] = (ids == IMAGE_TOKEN).long()
    if name == "idefics":
        inputs["image_attention_mask"] = torch.ones((*ids.shape, 1), dtype=torch.long)
    if name == "mllama":
        inputs["cross_attention_mask"] = torch.ones((*ids.shape, 1, 1), dtype=torch.long)
    return inputs


_COUNTS: dict[str, int] = {}


def _num_image_tokens(name: str, images: dict[str, Tensor]) -> int:
    if name not in _COUNTS:
        one = FAMILIES[name].images(1, torch.Generator().manual_seed(0))
        with torch.no_grad():
            model: Any = tiny_model(name)
            features = model.get_image_features(**one, return_dict=True).pooler_output
        parts = features if isinstance(features, list | tuple) else [features]
        _COUNTS[name] = sum(part.numel() // part.shape[-1] for part in parts)
    return _COUNTS[name] * len(images.get("image_grid_thw", images["pixel_values"]))


def row_of(inputs: dict[str, Tensor], row: int, *, rows: int) -> dict[str, Tensor]:
    """One row of a batch with everything that belongs to it."""
    return {
        key: value[row * len(value) // rows : (row + 1) * len(value) // rows]
        for key, value in inputs.items()
    }
