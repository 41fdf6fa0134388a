"""Where a Hugging Face model adds what the branches of its decoder layers say, and whether it does.

The same that a server looks at when it loads a backbone.
"""

import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from vlibrary_client.errors import UnsupportedBackboneError

if TYPE_CHECKING:
    from torch import Tensor

_PRE_NORMS = frozenset({"input_layernorm", "post_attention_layernorm"})
_PLAIN = _PRE_NORMS | {"self_attn", "mlp"}
_NORMED = _PLAIN | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
# What layers of Gemma 4 have besides.
_OWN_INPUTS = {
    "act_fn",
    "per_layer_input_gate",
    "per_layer_projection",
    "post_per_layer_input_norm",
}
_EXPERTS = {
    "router",
    "experts",
    "post_feedforward_layernorm_1",
    "post_feedforward_layernorm_2",
    "pre_feedforward_layernorm_2",
}
# Behind which of its parts the two shifts of a layer are added, by all parts that it has.
BEHIND = {
    _PLAIN: ("self_attn", "mlp"),
    frozenset({"input_layernorm", "self_attn", "mlp"}): ("self_attn", "mlp"),
    **dict.fromkeys(
        (_NORMED, _NORMED | _OWN_INPUTS, _NORMED | _EXPERTS, _NORMED | _OWN_INPUTS | _EXPERTS),
        ("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    _PLAIN | {"post_self_attn_layernorm", "post_mlp_layernorm"}: (
        "post_self_attn_layernorm",
        "post_mlp_layernorm",
    ),
}
_GATED = _PRE_NORMS | {"cross_attn", "mlp"}
_GATES = ("cross_attn_attn_gate", "cross_attn_mlp_gate")
# Where these are on, norms stand behind the branches.
ADDED_AS_IT_IS = {"norm_after": False, "swin_norm": False}
_TOKENS = [[1, 2, 3, 4]]
# Of a layer's output, and of what its branches add: more than rounding in bfloat16 makes of them.
_UNEXPLAINED = (0.01, 0.05)


def parts_of(layer: Any) -> frozenset[str]:  # noqa: ANN401 - a module
    """The names of a layer's parts, which tell of what kind it is."""
    return frozenset(name for name, _ in layer.named_children())


def is_gated(layer: Any) -> bool:  # noqa: ANN401 - a module
    """Whether the layer is one that is skipped where no picture is shown."""
    return parts_of(layer) == _GATED and all(hasattr(layer, gate) for gate in _GATES)


def branch_scale(model: Any) -> float:  # noqa: ANN401 - a model
    """What every layer multiplies both branches by when it adds them; 1 but in Granite."""
    return float(getattr(model.config.get_text_config(), "residual_multiplier", 1.0))


def require_known_layers(model: Any) -> None:  # noqa: ANN401 - a model
    """Returns when all layers are of a known kind and add their branches as they are.

    They may be added by a scale that a setting tells.

    Raises:
        UnsupportedBackboneError: One is made of other parts, a setting says otherwise, or what a
            layer gives out in a pass of a few tokens does.
    """
    import torch  # noqa: PLC0415 - an extra

    decoder = model.get_decoder()
    for layer in decoder.layers:
        if (parts := parts_of(layer)) not in BEHIND and not is_gated(layer):
            raise UnsupportedBackboneError(
                f"cannot steer a layer made of {', '.join(sorted(parts))}: wanted the parts of "
                f"a known decoder layer, such as {', '.join(sorted(_PLAIN))}"
            )
    for setting, plain in ADDED_AS_IT_IS.items():
        if (value := getattr(model.config.get_text_config(), setting, plain)) != plain:
            raise _refusal(f"{setting} {value}")
    with (
        ExitStack() as hooks,
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
        # A decoder that cannot be asked without a picture, which only Idefics' is.
        suppress(ValueError),
    ):
        for index, layer in enumerate(decoder.layers):
            # What layers of Gemma 4 do behind their branches is known.
            if not is_gated(layer) and not hasattr(layer, "layer_scalar"):
                _watch(layer, index, scale=branch_scale(model), hooks=hooks)
        # Not through its hooks, which count the passes of vectors that steer already.
        decoder.forward(input_ids=torch.tensor(_TOKENS, device=model.device), use_cache=False)


def _watch(layer: Any, index: int, *, scale: float, hooks: ExitStack) -> None:  # noqa: ANN401
    mine = threading.get_ident()
    parts: list[Tensor] = []

    def begin(_module: object, inputs: Any, options: Any) -> None:  # noqa: ANN401
        if threading.get_ident() == mine:
            parts[:] = [inputs[0] if inputs else options["hidden_states"]]

    def keep(_module: object, _inputs: object, output: Any) -> None:  # noqa: ANN401
        if threading.get_ident() == mine:
            parts.append(_states(output))

    def end(_module: object, _inputs: object, output: Any) -> None:  # noqa: ANN401
        if threading.get_ident() == mine and not _is_sum(_states(output), parts, scale=scale):
            raise _refusal(f"{type(layer).__name__} {index}, which scales or changes them")

    hooks.enter_context(layer.register_forward_pre_hook(begin, with_kwargs=True))
    for name in BEHIND[parts_of(layer)]:
        hooks.enter_context(getattr(layer, name).register_forward_hook(keep))
    hooks.enter_context(layer.register_forward_hook(end))


def _is_sum(output: "Tensor", parts: list["Tensor"], *, scale: float) -> bool:
    taken, *branches = (part.to(output.device).reshape(output.shape).float() for part in parts)
    added = scale * (branches[0] + branches[1])
    # The median: a few tokens of most backbones carry activations that drown what is added.
    missing, whole, own = (
        float(states.norm(dim=-1).median())
        for states in (output.float() - taken - added, output.float(), added)
    )
    of_output, of_branches = _UNEXPLAINED
    return missing <= of_output * whole or missing <= of_branches * own


def _states(output: Any) -> "Tensor":  # noqa: ANN401 - a tensor or a tuple
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def _refusal(found: str) -> UnsupportedBackboneError:
    return UnsupportedBackboneError(
        "cannot steer layers that change what a branch adds: wanted branches added as they are, "
        f"found {found}"
    )
