"""The injection equation, computed layer by layer without any hook."""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.method.steering.injection import inject
from tests.fakes.models.backbones import HIDDEN, LAYERS, tiny_inputs, tiny_model


def naive_logits(backbone: PreTrainedModel, inputs: dict[str, Tensor], shift: Tensor) -> Tensor:
    """h = h + (attention + shift) + (mlp + shift), every layer, every position; one row."""
    model: Any = backbone
    decoder = model.model.text_model
    ids = inputs["input_ids"]
    features = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
    hidden = decoder.embed_tokens(ids)
    hidden[ids == model.config.image_token_id] = torch.cat(list(features))
    length = ids.shape[1]
    places = torch.arange(length)[None]
    cosines = decoder.rotary_emb(hidden, places)
    visible = torch.tril(torch.ones(length, length)).bool()
    mask = torch.zeros(1, 1, length, length).masked_fill(~visible, -torch.inf)
    for index, layer in enumerate(decoder.layers):
        attended = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            attention_mask=mask,
            position_embeddings=cosines,
        )[0]
        hidden = hidden + (attended + shift[index, 0])
        hidden = hidden + (layer.mlp(layer.post_attention_layernorm(hidden)) + shift[index, 1])
    return cast("Tensor", model.lm_head(decoder.norm(hidden)))


def test_hooks_compute_the_equation() -> None:
    model, inputs = tiny_model("idefics3"), tiny_inputs("idefics3", rows=1)
    generator = torch.Generator().manual_seed(3)
    shift = torch.randn((LAYERS, 2, HIDDEN), generator=generator) * 0.5
    with torch.no_grad():
        wanted = naive_logits(model, inputs, shift)
        plain = naive_logits(model, inputs, torch.zeros_like(shift))
        with inject(model, shift[None]):
            found = model(**inputs).logits
        unsteered = model(**inputs).logits
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    torch.testing.assert_close(unsteered, plain, atol=2e-5, rtol=0)
    assert (wanted - plain).abs().max() > 0.1
