"""On which of several devices each part of a model lies.

Decoder layers are spread, whole ones and in their order. All else lies on the first device: what
goes in and comes out, pictures and their features, embeddings, the last norm and the head. So
whoever is not about single layers deals with one device.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from importlib import import_module
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from app.core.errors import ConfigurationError, UnsupportedBackboneError


def device_map(
    config: PreTrainedConfig, devices: Sequence[torch.device], *, spares_first: bool
) -> dict[str, torch.device]:
    """Where each part of a model of this configuration is to lie, by its name.

    Of the devices, at least two, each gets about as many bytes; the first gets no layers where it
    is spared.

    Raises:
        UnsupportedBackboneError: The text decoder has no list of layers.
    """
    make: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"):
        model: PreTrainedModel = make(deepcopy(config))
    decoder = cast("Any", model).get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UnsupportedBackboneError(
            f"{type(model).__name__} cannot be spread over devices: wanted a text decoder with a "
            f"list of layers, found a {type(decoder).__name__} without one"
        )
    name = next(name for name, module in model.named_modules() if module is layers)
    sizes = [_num_bytes(layer) for layer in layers]
    others = _num_bytes(model) - sum(sizes)
    places = (
        [1 + place for place in _shares(sizes, len(devices) - 1)]
        if spares_first
        else _shares(sizes, len(devices), before=others)
    )
    spread = {f"{name}.{index}": devices[place] for index, place in enumerate(places)}
    return dict.fromkeys(_beside(model, layers), devices[0]) | spread


def _num_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _shares(sizes: Sequence[int], count: int, *, before: int = 0) -> list[int]:
    """Which of so many equal shares each size falls into by its middle, in their order."""
    share = (before + sum(sizes)) / count
    found, end = [], before
    for size in sizes:
        found.append(min(count - 1, int((end + size / 2) / share)))
        end += size
    return found


def _beside(module: nn.Module, layers: nn.ModuleList, prefix: str = "") -> Iterator[str]:
    """The names of all that is not among the layers; modules are named whole where they can be."""
    for name, child in module.named_children():
        if child is layers:
            continue
        # A list is never called, so that nothing could bring it what it is given.
        if isinstance(child, nn.ModuleList) or any(one is layers for one in child.modules()):
            yield from _beside(child, layers, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
    yield from (prefix + name for name, _ in module.named_parameters(recurse=False))
    yield from (prefix + name for name, _ in module.named_buffers(recurse=False))


def require_accelerate() -> None:
    """Returns when there is what brings states from one device to the next.

    Raises:
        ConfigurationError: The package is not installed.
    """
    try:
        import_module("accelerate")
    except ImportError as error:
        raise ConfigurationError(
            "Layers cannot be spread over devices: wanted the package accelerate (pip install "
            "'.[devices]'), found none"
        ) from error


def leave_inputs(model: PreTrainedModel) -> None:
    """Takes off what would move the inputs of a model that was loaded in parts.

    Which device it would move them to depends on how sets are ordered, and they are in their place.
    """
    hooks: Any = import_module("accelerate.hooks")
    hooks.remove_hook_from_module(model)
