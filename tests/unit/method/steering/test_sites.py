from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig, Olmo2Config, PreTrainedModel

from app.core.errors import UnsupportedBackboneError
from app.method.steering.sites import Layout, find_decoder, find_sites
from tests.fakes.models.backbones import LAYERS, tiny_model
from tests.fakes.models.family_configs import TEXT

Models = Callable[[str], PreTrainedModel]


@pytest.mark.parametrize(
    ("family", "layouts"),
    [
        ("idefics", [Layout.PLAIN] * 3),
        ("qwen3_vl", [Layout.PLAIN] * 3),
        ("paligemma", [Layout.PLAIN] * 3),
        ("paligemma2", [Layout.NORMED] * 3),
        ("gemma3", [Layout.NORMED] * 3),
        ("gemma4", [Layout.NORMED] * 3),
        ("gemma4_experts", [Layout.NORMED] * 3),
        ("glm4v", [Layout.NORMED] * 3),
        ("cohere2_vision", [Layout.PLAIN] * 3),
        ("mllama", [Layout.PLAIN, Layout.GATED, Layout.PLAIN]),
    ],
)
def test_the_layout_follows_the_family(
    family: str, layouts: list[Layout], model_of: Models
) -> None:
    assert [layer.layout for layer in find_sites(model_of(family))] == layouts


def test_the_decoder_is_the_text_model_even_where_the_vision_tower_is_deeper() -> None:
    model = tiny_model("qwen2_vl")
    decoder = find_decoder(model)
    assert decoder is model.get_submodule("model.language_model")
    assert len(find_sites(model)) == LAYERS


def test_a_layer_of_unknown_parts_is_refused_with_what_was_found() -> None:
    model = tiny_model("llava")
    find_sites(model)[1].layer.add_module("second_mlp", nn.Identity())
    with pytest.raises(UnsupportedBackboneError, match="second_mlp, self_attn in layer 1"):
        find_sites(model)


@pytest.mark.parametrize(
    ("mixer", "reason"), [("linear_attn", "linear attention"), ("conv", "a convolution")]
)
def test_a_layer_without_attention_is_refused_with_the_reason(mixer: str, reason: str) -> None:
    model = tiny_model("llava")
    layer = find_sites(model)[0].layer
    layer.add_module(mixer, nn.Identity())
    del layer.self_attn
    with pytest.raises(UnsupportedBackboneError, match=f"by {reason} and has no attention branch"):
        find_sites(model)


def test_a_missing_layer_is_refused() -> None:
    model = tiny_model("llava")
    layers = find_decoder(model).layers
    assert isinstance(layers, nn.ModuleList)
    del layers[-1]
    with pytest.raises(UnsupportedBackboneError, match="wanted 3 decoder layers"):
        find_sites(model)


def test_a_model_without_decoder_layers_is_refused() -> None:
    model = tiny_model("llava")
    model.get_submodule("model.language_model").layers = nn.Identity()
    with pytest.raises(UnsupportedBackboneError, match="a text decoder with a list of layers"):
        find_sites(model)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (GraniteConfig(**TEXT, residual_multiplier=0.5), "branches added as they are"),
        (Olmo2Config(**TEXT), "the parts of a known decoder layer"),
    ],
)
def test_layers_that_add_differently_are_refused(
    config: GraniteConfig | Olmo2Config, wanted: str
) -> None:
    make: Any = AutoModelForCausalLM.from_config
    model: PreTrainedModel = make(config)
    with pytest.raises(UnsupportedBackboneError, match=wanted):
        find_sites(model)
