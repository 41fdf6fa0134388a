from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    ChameleonConfig,
    Molmo2Config,
    Olmo2Config,
    PreTrainedModel,
)

from app.core.errors import UnsupportedBackboneError
from app.method.steering.sites import find_decoder, find_sites
from tests.fakes.models.backbones import LAYERS, tiny_model
from tests.fakes.models.family_sizes import TEXT

Models = Callable[[str], PreTrainedModel]


@pytest.mark.parametrize(
    ("family", "branches"),
    [
        ("idefics", ("self_attn", "mlp")),
        ("qwen3_vl", ("self_attn", "mlp")),
        ("paligemma", ("self_attn", "mlp")),
        ("paligemma2", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("gemma3", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("gemma4", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("gemma4_experts", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("glm4v", ("post_self_attn_layernorm", "post_mlp_layernorm")),
        ("cohere2_vision", ("self_attn", "mlp")),
        ("granite_vision", ("self_attn", "mlp")),
    ],
)
def test_the_sites_follow_the_family(
    family: str, branches: tuple[str, str], model_of: Models
) -> None:
    attention, mlp = branches
    found = find_sites(model_of(family))
    assert len(found) == LAYERS
    for sites in found:
        assert not sites.is_gated
        assert sites.attention is sites.layer.get_submodule(attention)
        assert sites.mlp is sites.layer.get_submodule(mlp)


def test_cross_attention_layers_are_gated(model_of: Models) -> None:
    found = find_sites(model_of("mllama"))
    assert [sites.is_gated for sites in found] == [False, True, False]
    assert found[1].mlp is found[1].layer
    assert found[1].attention is found[1].layer.get_submodule("post_attention_layernorm")


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


def test_layers_that_add_differently_are_refused() -> None:
    make: Any = AutoModelForCausalLM.from_config
    model: PreTrainedModel = make(Olmo2Config(**TEXT))
    with pytest.raises(UnsupportedBackboneError, match="the parts of a known decoder layer"):
        find_sites(model)


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (
            ChameleonConfig(swin_norm=True, num_hidden_layers=1, vocabulary_map={"<image>": 4}),
            "swin_norm",
        ),
        (Molmo2Config(text_config={"norm_after": True, "num_hidden_layers": 1}), "norm_after"),
    ],
)
def test_layers_that_norm_what_a_branch_adds_are_refused(
    config: ChameleonConfig | Molmo2Config, setting: str
) -> None:
    make: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"):
        model: PreTrainedModel = make(config)
    with pytest.raises(UnsupportedBackboneError, match=f"as they are, found {setting} True"):
        find_sites(model)
