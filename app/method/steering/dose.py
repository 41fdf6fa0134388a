"""How strong a shift is, against what it is added to.

A shift that is much longer than the residual stream drowns what the backbone itself has to say, and
answers turn to noise whatever the vector was trained for.

Source: ours; that steering breaks beyond some multiple of the stream's norm is a common finding.
"""

from contextlib import ExitStack
from functools import partial
from math import floor
from typing import Any, Final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from app.core.errors import InvalidInputError, UnsupportedBackboneError
from app.core.pictures import Picture
from app.method.backbone.checkpoint.models import first_line
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.method.steering.sites import LayerSites, find_sites, require_sum

_PROBE_QUESTION = "What is shown in this image?"
_PROBE_SIDE = 64
_PROBE_GREY = (140, 140, 140)
# The same shift's dose differs a little between devices and files.
_ROUNDING: Final = 1.01


@torch.inference_mode()
def residual_norms(backbone: Backbone) -> Float[Tensor, " layers"]:
    """The usual length of the residual stream behind every decoder layer, float32 on the CPU.

    The median over the tokens of a plain prompt: a few tokens of most backbones carry activations
    that are larger by orders of magnitude and say nothing about the others.

    Raises:
        UnsupportedBackboneError: The processor cannot read a picture, or the model not what it made
            of one; or a layer does not add its branches as they are.
    """
    image = Picture.of(Image.new("RGB", (_PROBE_SIDE, _PROBE_SIDE), _PROBE_GREY))
    prompt = build_prompt(backbone, _PROBE_QUESTION, image)
    norms: list[Tensor] = []
    parts: list[Tensor] = []

    def begin(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        parts[:] = [args[0] if args else options["hidden_states"]]

    def keep(_module: nn.Module, _inputs: object, output: Any) -> None:  # noqa: ANN401
        parts.append(_hidden(output))

    def end(_module: nn.Module, _inputs: object, output: Any, *, of: LayerSites) -> None:  # noqa: ANN401
        hidden = _hidden(output)
        norms.append(hidden.float().norm(dim=-1).median().cpu())
        if of.gives_the_sum:
            require_sum(backbone.model, of, parts=parts, output=hidden)

    with ExitStack() as hooks:
        for sites in find_sites(backbone.model):
            layer = sites.layer
            hooks.enter_context(layer.register_forward_pre_hook(begin, with_kwargs=True))
            for branch in (sites.attention, sites.mlp):
                hooks.enter_context(branch.register_forward_hook(keep))
            hooks.enter_context(layer.register_forward_hook(partial(end, of=sites)))
        try:
            backbone.model(**encode_prompts(backbone, [prompt]).inputs, use_cache=False)
        except (TypeError, ValueError) as error:
            raise UnsupportedBackboneError(
                f"{backbone.name} cannot be asked about a picture: wanted a processor with the "
                "model's settings (such as patch_size and num_additional_image_tokens), found "
                f"{first_line(error)}"
            ) from error
    return torch.stack(norms)


def _hidden(output: Any) -> Tensor:  # noqa: ANN401 - a tensor or a tuple
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def dose_of(shift: Float[Tensor, "layers 2 hidden"], norms: Float[Tensor, " layers"]) -> float:
    """The largest ratio, over the layers, of what both branches add to the stream's length.

    `norms` are those of `residual_norms`.
    """
    added = shift.float().sum(dim=1).norm(dim=-1).cpu()
    return float((added / norms.clamp_min(torch.finfo(torch.float32).tiny)).max())


def check_dose(
    shift: Float[Tensor, "layers 2 hidden"],
    *,
    norms: Float[Tensor, " layers"],
    highest: float,
    strength: float | None = None,
) -> float:
    """The dose of a shift: how long it is beside what it is added to.

    `strength` is that of the only vector, to be told what would be taken.

    Raises:
        InvalidInputError: It is too high.
    """
    dose = dose_of(shift, norms)
    if dose <= highest * _ROUNDING:
        return dose
    raise InvalidInputError(
        f"The vectors act too strongly: wanted a dose of at most {highest:.3g}, "
        f"found {dose:.3g}; {_allowed(highest / dose, strength)}",
        details={"wanted": highest, "found": dose},
    )


def _allowed(share: float, strength: float | None) -> str:
    """What may be asked for, rounded so that it is taken."""
    if strength is None:
        return f"lower the strengths to {floor(share * 1000) / 1000:.3f} of what they are"
    return f"the largest strength is {floor(abs(strength) * share * 1000) / 1000:.3f}"
