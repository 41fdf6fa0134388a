"""Where each family of backbones writes its two branches into the residual stream.

Three layouts are known, told apart by the children of a decoder layer:

- *plain*: the outputs of `self_attn` and `mlp` are added as they are, one after the other (Llama,
  Mistral, Qwen) or both to the layer's input (Cohere 2).
- *normed*: a norm stands between the branch and the addition; its output is the site (Gemma 2 to 4,
  GLM-4V). Layers of Gemma 4 may add inputs of their own behind both branches, and scale the stream.
- *gated*: a learned gate scales the branch before the addition (the cross-attention layers of
  Mllama). A gate may be zero, so the branch's own output is no site: whatever is added there could
  vanish. The layer's output and the input of its second norm are, together, equivalent to the two
  points after the gates.

Idefics (the first) interleaves gated cross-attention blocks with its decoder layers. They are extra
blocks outside `num_hidden_layers`; a decoder layer there means a layer of the text decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.core.errors import UnsupportedBackboneError


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSites:
    """The modules of one decoder layer where its branches can be shifted.

    Attributes:
        is_gated: Whether a learned gate scales its branches.
        attention: Its output is the attention branch; in a gated layer, its *input* is the residual
            stream right after the attention branch was added.
        mlp: Its output is the MLP branch; in a gated layer this is the layer itself.
    """

    index: int
    is_gated: bool
    layer: nn.Module
    attention: nn.Module
    mlp: nn.Module

    @property
    def gives_the_sum(self) -> bool:
        """Whether the layer gives out what went in and what its branches add, and no more.

        Gated ones and those of Gemma 4 do something behind their sites, which is known.
        """
        return not self.is_gated and not hasattr(self.layer, "layer_scalar")

    @property
    def device(self) -> torch.device:
        """Where the layer lies, and with it what both branches add."""
        return next(self.layer.parameters()).device


_PRE_NORMS: Final = frozenset({"input_layernorm", "post_attention_layernorm"})
_PLAIN: Final = _PRE_NORMS | {"self_attn", "mlp"}
_NORMED: Final = _PLAIN | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
# What Gemma 4 has besides: inputs of each layer, which are added behind both branches, and experts,
# whose sum with the MLP's goes through the branch's one norm.
_OWN_INPUTS: Final = frozenset(
    {"act_fn", "per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm"}
)
_EXPERTS: Final = frozenset(
    {
        "router",
        "experts",
        "post_feedforward_layernorm_1",
        "post_feedforward_layernorm_2",
        "pre_feedforward_layernorm_2",
    }
)
_NORMED_KINDS: Final = frozenset(
    {_NORMED, _NORMED | _OWN_INPUTS, _NORMED | _EXPERTS, _NORMED | _OWN_INPUTS | _EXPERTS}
)
_PARALLEL: Final = frozenset({"input_layernorm", "self_attn", "mlp"})
_SANDWICHED: Final = _PLAIN | {"post_self_attn_layernorm", "post_mlp_layernorm"}
_GATED: Final = _PRE_NORMS | {"cross_attn", "mlp"}
# Parts that stand where attention should, by what they are called.
_MIXERS: Final = {"linear_attn": "linear attention", "conv": "a convolution"}
# Where these are on, norms stand behind the branches (Molmo 2, Chameleon).
_ADDED_AS_IT_IS: Final = {"norm_after": False, "swin_norm": False}
_GATES: Final = frozenset({"cross_attn_attn_gate", "cross_attn_mlp_gate"})
# Of a layer's output, and of what its branches add: more than rounding in bfloat16 makes of them.
_UNEXPLAINED: Final = (0.01, 0.05)


def _unsupported(model: PreTrainedModel, wanted: str, found: str) -> UnsupportedBackboneError:
    architecture = type(model).__name__
    return UnsupportedBackboneError(
        f"{architecture} cannot be steered: wanted {wanted}, found {found}",
        details={"architecture": architecture, "wanted": wanted, "found": found},
    )


def find_decoder(model: PreTrainedModel) -> nn.Module:
    """The text decoder of a vision-language model, the module that runs the decoder layers.

    Raises:
        UnsupportedBackboneError: There is no module with a list of layers where it should be.
    """
    decoder: nn.Module = cast("Any", model).get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise _unsupported(
            model, "a text decoder with a list of layers", f"a {type(decoder).__name__} without one"
        )
    return decoder


def branch_scale(model: PreTrainedModel) -> float:
    """What every layer multiplies both branches by when it adds them; 1 but in Granite.

    A shift at a site is divided by it.
    """
    return float(getattr(model.config.get_text_config(), "residual_multiplier", 1.0))


def _layer_sites(model: PreTrainedModel, index: int, layer: nn.Module) -> LayerSites:
    children = frozenset(name for name, _ in layer.named_children())
    get = layer.get_submodule
    is_gated = False
    if children in {_PLAIN, _PARALLEL}:
        attention, mlp = get("self_attn"), get("mlp")
    elif children in _NORMED_KINDS:
        attention, mlp = get("post_attention_layernorm"), get("post_feedforward_layernorm")
    elif children == _SANDWICHED:
        attention, mlp = get("post_self_attn_layernorm"), get("post_mlp_layernorm")
    elif children == _GATED and all(hasattr(layer, gate) for gate in _GATES):
        attention, mlp, is_gated = get("post_attention_layernorm"), layer, True
    else:
        wanted = "the parts of a known decoder layer, such as " + ", ".join(sorted(_PLAIN))
        found = f"{', '.join(sorted(children))} in layer {index}"
        mixers = [said for name, said in _MIXERS.items() if name in children]
        if mixers:
            found += f", which joins tokens by {mixers[0]} and has no attention branch"
        raise _unsupported(model, wanted, found)
    return LayerSites(index=index, is_gated=is_gated, layer=layer, attention=attention, mlp=mlp)


def find_sites(model: PreTrainedModel) -> list[LayerSites]:
    """The sites of every decoder layer of the text decoder, first block first.

    Raises:
        UnsupportedBackboneError: The layout is unknown, or a layer adds its branches in a way that
            an addition at the site would not reproduce.
    """
    config = model.config.get_text_config()
    layers = cast("nn.ModuleList", find_decoder(model).layers)
    if len(layers) != config.num_hidden_layers:
        raise _unsupported(
            model, f"{config.num_hidden_layers} decoder layers", f"a list of {len(layers)} modules"
        )
    for setting, wanted in _ADDED_AS_IT_IS.items():
        found = getattr(config, setting, wanted)
        if found != wanted:
            raise _unsupported(model, "branches added as they are", f"{setting} {found}")
    return [_layer_sites(model, index, layer) for index, layer in enumerate(layers)]


def require_sum(
    model: PreTrainedModel,
    sites: LayerSites,
    *,
    parts: Sequence[Float[Tensor, "..."]],
    output: Float[Tensor, "batch tokens hidden"],
) -> None:
    """Returns when a layer that `gives_the_sum` did, of what went in and what left both sites.

    Raises:
        UnsupportedBackboneError: It changes what a branch adds, and so would a shift be.
    """
    taken, *branches = (part.to(output.device).reshape(output.shape).float() for part in parts)
    added = torch.stack(branches).sum(0) * branch_scale(model)
    # The median: a few tokens of most backbones carry activations that drown what is added.
    missing, whole, own = (
        float(states.norm(dim=-1).median())
        for states in (output.float() - taken - added, output.float(), added)
    )
    of_output, of_branches = _UNEXPLAINED
    if missing > of_output * whole and missing > of_branches * own:
        raise _unsupported(
            model,
            "branches added as they are",
            f"{type(sites.layer).__name__} {sites.index}, which scales or changes them",
        )
