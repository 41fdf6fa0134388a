"""Models with their layers on several devices that are not there."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from accelerate import dispatch_model
from torch import nn
from transformers import PreTrainedModel

from app.method.backbone.checkpoint.placement import device_map, leave_inputs
from app.method.backbone.loading import Backbone
from tests.fakes.models.devices import moved, stand_in


def spread_model(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with its layers on two stand-ins, and all else on a third.

    Placed as `device_map` says, and with the hooks that transformers puts on what it loads so.
    """
    devices = [stand_in(index) for index in range(3)]
    places = device_map(model.config, devices, spares_first=True)
    spread = deepcopy(model)
    with warnings.catch_warnings():
        # Some parameters belong to no part that could be named whole.
        warnings.simplefilter("ignore")
        _place(spread, places)
        skipped = spread._skip_keys_device_placement
        dispatch_model(spread, places, main_device=devices[0], skip_keys=skipped)
    leave_inputs(spread)
    return spread


def spread_backbone(backbone: Backbone) -> Backbone:
    """The same backbone with its layers on stand-ins."""
    return replace(backbone, model=spread_model(backbone.model))


def _place(model: nn.Module, places: Mapping[str, torch.device]) -> None:
    names = sorted(places, key=len, reverse=True)
    for prefix, module in model.named_modules():
        for table in (module._parameters, module._buffers):
            for own, value in table.items():
                if value is None:
                    continue
                whole = f"{prefix}.{own}" if prefix else own
                name = next(one for one in names if f"{whole}.".startswith(f"{one}."))
                there = moved(value.data, places[name])
                is_parameter = isinstance(value, nn.Parameter)
                table[own] = nn.Parameter(there, requires_grad=False) if is_parameter else there
