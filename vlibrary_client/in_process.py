"""A vector applied to a Hugging Face model of this process, without a server.

Needs safetensors, torch and transformers, the extra `transformers`. What a server checks
and this cannot is the backbone's fingerprint, which takes its weights and its processor: here the
architecture, the number of layers and the width must fit.

Source: M2IV, arXiv 2504.04633, section 3.
"""

import math
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vlibrary_client.decoders import (
    BEHIND,
    branch_scale,
    is_gated,
    parts_of,
    require_known_layers,
)
from vlibrary_client.errors import (
    ConfigurationError,
    IncompatibleBackboneError,
    InvalidVectorFileError,
    SteeringError,
    UnsupportedBackboneError,
)
from vlibrary_client.sharing.folders import FILE_NAME, read_folder, read_shift

if TYPE_CHECKING:
    from torch import Tensor

_COMPILED = 0


class AppliedShift:
    """Hooks that add a vector to every decoder layer, at every token, until they are removed.

    As a context manager it removes them at the end, and raises `SteeringError` when a pass of the
    model left a site as it was.
    """

    def __init__(self, model: Any, shift: "Tensor") -> None:  # noqa: ANN401 - a model
        import torch  # noqa: PLC0415 - an extra

        decoder = model.get_decoder()
        # So that no pass moves or converts it again.
        self._shifts = [
            _placed(own.to(model.dtype), layer)
            for own, layer in zip(shift, decoder.layers, strict=True)
        ]
        self._sites = {(layer, branch) for layer in range(len(shift)) for branch in (0, 1)}
        # Begun as a pass leaves it, so that the first compiled pass does for the next ones as well.
        self._hits_of_threads = {_COMPILED: set(self._sites)}
        self._is_complete = True
        # A tensor, for a compiled pass is compiled again whenever a number that it reads changes;
        # one that is made in inference mode could not be changed outside of it.
        with torch.inference_mode(mode=False):
            self._num_passes = torch.zeros((), dtype=torch.long, device="cpu")
        self._handles = [
            decoder.register_forward_pre_hook(self._begin),
            decoder.register_forward_hook(self._count),
        ]
        gated: list[int] = []
        for index, layer in enumerate(decoder.layers):
            self._install(index, layer)
            if is_gated(layer):
                gated.append(index)
            elif gated:
                self._install_behind(gated, layer)
                gated = []
        if gated:
            self._install_behind(gated, decoder.norm)
        _forget_compiled()

    def __enter__(self) -> Self:
        if not self._handles:
            raise SteeringError("the vector was taken off: call apply again to steer once more")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Takes the hooks off, and checks what they did unless something else went wrong."""
        self.remove()
        if kind is None:
            self.verify()

    def remove(self) -> None:
        """Takes the hooks off; the model is as it was before them."""
        while self._handles:
            self._handles.pop().remove()
        _forget_compiled()

    def verify(self) -> None:
        """Returns when every pass so far was shifted at every site.

        Raises:
            SteeringError: One was not.
        """
        if not self._is_complete:
            raise SteeringError("the vector was not applied in full: a pass left sites out")

    @property
    def num_passes(self) -> int:
        """Passes through the decoder since the vector was applied."""
        return int(self._num_passes)

    @property
    def _hits(self) -> set[tuple[int, int]]:
        # A thread that began no pass computes a part of one again, for gradients.
        return self._hits_of_threads.get(_this_thread(), self._sites)

    def _begin(self, *_call: object) -> None:
        # A pass that failed has left some.
        self._hits_of_threads[_this_thread()] = set()

    def _count(self, *_call: object) -> None:
        self._num_passes += 1
        if self._hits != self._sites:
            self._is_complete = False

    def _install(self, index: int, layer: Any) -> None:  # noqa: ANN401 - a module
        if is_gated(layer):
            # A gate may be zero, so what is added before it could vanish: the input of the second
            # norm and the layer's output are the two points behind the gates.
            norm = layer.post_attention_layernorm
            before = partial(self._before_norm, site=(index, 0))
            self._handles.append(norm.register_forward_pre_hook(before))
            after = partial(self._after_gated, index=index)
            self._handles.append(layer.register_forward_hook(after))
            return
        for branch, name in enumerate(BEHIND[parts_of(layer)]):
            after = partial(self._after, site=(index, branch))
            self._handles.append(getattr(layer, name).register_forward_hook(after))

    def _install_behind(self, gated: list[int], module: Any) -> None:  # noqa: ANN401 - a module
        before = partial(self._before_next, skipped=tuple(gated))
        self._handles.append(module.register_forward_pre_hook(before))

    def _before_next(self, _module: object, inputs: Any, *, skipped: tuple[int, ...]) -> Any:  # noqa: ANN401
        # A layer that is left out adds nothing, so its shifts are all that its branches add.
        hidden = inputs[0]
        for site in ((layer, branch) for layer in skipped for branch in (0, 1)):
            if site not in self._hits:
                hidden = self._shifted(hidden, site)
        return (hidden, *inputs[1:])

    def _after(self, _module: object, _inputs: object, output: Any, *, site: Any) -> Any:  # noqa: ANN401
        if isinstance(output, tuple):
            return (self._shifted(output[0], site), *output[1:])
        return self._shifted(output, site)

    def _before_norm(self, _module: object, inputs: Any, *, site: Any) -> Any:  # noqa: ANN401
        return (self._shifted(inputs[0], site), *inputs[1:])

    def _after_gated(self, _module: object, _inputs: object, output: Any, *, index: int) -> Any:  # noqa: ANN401
        # The layer kept its residual from before the second norm, so both shifts are due here.
        return self._shifted(self._shifted(output, (index, 1)), (index, 0))

    def _shifted(self, hidden: Any, site: tuple[int, int]) -> Any:  # noqa: ANN401 - tensors
        self._hits.add(site)
        layer, branch = site
        return hidden + self._shifts[layer][branch].to(hidden.device, hidden.dtype)


def apply(model: Any, vector: str | Path | bytes, *, strength: float = 1.0) -> AppliedShift:  # noqa: ANN401
    """Steers a Hugging Face vision-language model from now on, whatever it is asked.

        with apply(model, "gears/"):
            model.generate(**inputs)

    Args:
        model: A `PreTrainedModel` whose decoder has layers of a known kind, or what wraps one, such
            as an adapter of PEFT or `torch.compile`. What was compiled before is compiled again.
        vector: A folder as `client.vectors.export` writes it, a vector file, or its bytes.
        strength: Factor over the whole; a negative one steers away.

    Returns:
        The handle that takes the vector off again; a context manager as well.

    Raises:
        ConfigurationError: torch or safetensors is missing.
        InvalidVectorFileError: It is no vector.
        CorruptDataError: The file is not the one that the folder names.
        IncompatibleBackboneError: It was made for a backbone of other sizes.
        UnsupportedBackboneError: The model's layers are of no known kind, or change what a branch
            adds, which a pass of a few tokens shows.
    """
    if not math.isfinite(strength):
        raise InvalidVectorFileError(f"wanted a finite strength, found {strength}")
    content, architecture = _read(vector)
    try:
        import torch  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "to apply a vector here, pip install safetensors torch transformers"
        ) from None
    shift = torch.from_numpy(read_shift(content)) * strength
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    backbone: Any = next((one for one in modules if hasattr(type(one), "get_decoder")), None)
    if backbone is None:
        raise UnsupportedBackboneError(
            f"wanted a PreTrainedModel of transformers, found {type(model).__name__}"
        )
    if architecture not in {None, type(backbone).__name__}:
        raise IncompatibleBackboneError(
            f"wanted {architecture}, found {type(backbone).__name__}",
            details={"wanted": architecture, "found": type(backbone).__name__},
        )
    layers = getattr(decoder := backbone.get_decoder(), "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise UnsupportedBackboneError(
            f"wanted a decoder with a list of layers, found {type(decoder).__name__} without one"
        )
    width = backbone.config.get_text_config().hidden_size
    wanted, found = tuple(shift.shape), (len(layers), 2, width)
    if wanted != found:
        raise IncompatibleBackboneError(
            f"wanted {wanted[0]} layers of width {wanted[2]}, found {found[0]} of {found[2]}",
            details={"wanted": list(wanted), "found": list(found)},
        )
    require_known_layers(backbone)
    # Granite's layers multiply what a branch adds.
    return AppliedShift(backbone, shift / branch_scale(backbone))


def _placed(shift: "Tensor", layer: Any) -> "Tensor":  # noqa: ANN401 - a module
    """The shifts of a layer where it lies; offloaded weights lie nowhere between two passes."""
    device = next(layer.parameters()).device
    return shift if device.type == "meta" else shift.to(device)


def _this_thread() -> int:
    import torch  # noqa: PLC0415 - an extra

    # What is compiled cannot ask for its thread.
    return _COMPILED if torch.compiler.is_compiling() else threading.get_ident()


def _forget_compiled() -> None:
    """What is compiled from here on sees the hooks that there are: they are not looked at again."""
    import torch  # noqa: PLC0415 - an extra

    torch.compiler.reset()


def _read(vector: str | Path | bytes) -> tuple[bytes, str | None]:
    """The file's bytes, and the architecture where a folder tells it."""
    if isinstance(vector, bytes):
        return vector, None
    path = Path(vector)
    if path.is_dir():
        folder = read_folder(path)
        backbone = folder.config.get("backbone")
        return folder.content, backbone.get("architecture") if isinstance(backbone, dict) else None
    try:
        return path.read_bytes(), None
    except OSError:
        raise InvalidVectorFileError(
            f"{path}: wanted a folder with {FILE_NAME}, or a vector file, found none"
        ) from None
