"""Backbones that are loaded with their layers on several devices, which are stand-ins."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import ConfigurationError
from app.method.backbone.checkpoint.models import CheckpointPlace, load_model, read_config
from app.method.backbone.checkpoint.placement import device_map
from app.method.backbone.loading import load_backbone
from app.method.steering.sites import find_sites
from tests.fakes.models.backbones import (
    FAMILIES,
    tiny_inputs,
    tiny_model,
    tiny_processed_model,
    tiny_processor,
)
from tests.fakes.models.devices import stand_in, stand_ins
from tests.fakes.models.steered import logits_of

VISIBLE = "app.method.backbone.loading.visible_devices"


@pytest.fixture(autouse=True)
def weights_are_read_on_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    processor = tiny_processor()
    tiny_processed_model(processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_the_same_on_three_devices(family: str, tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    checkpoint, inputs = CheckpointPlace(source=family, place=str(tmp_path)), tiny_inputs(family)
    config = read_config(checkpoint)
    how: dict[str, Any] = {"dtype": torch.float32, "attention": FAMILIES[family].attention}
    wanted = logits_of(load_model(checkpoint, config, **how), inputs)
    with stand_ins():
        devices = [stand_in(index) for index in range(3)]
        places = device_map(config, devices, spares_first=True)
        spread = load_model(checkpoint, config, places=places, **how)
        assert {sites.device for sites in find_sites(spread)} == set(devices[1:])
        there = {key: value.to(spread.device) for key, value in inputs.items()}
        found = logits_of(spread, there)
        assert found.device == devices[0]
        assert torch.equal(found.cpu(), wanted)


@pytest.mark.parametrize("device", ["balanced", "balanced_low_0"])
def test_a_spread_backbone_is_the_same_backbone(
    device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What lies beside the layers would otherwise be more than they are.
    monkeypatch.setattr("app.method.backbone.checkpoint.placement._num_bytes", _evenly)
    monkeypatch.setattr(VISIBLE, lambda: [stand_in(0), stand_in(1)])
    with stand_ins():
        found = load_backbone(str(folder), device=device)
        lie = [sites.device.index for sites in find_sites(found.model)]
        assert lie == ([0, 1, 1] if device == "balanced" else [1, 1, 1])
        assert (found.device, found.dtype) == (stand_in(0), torch.float32)
    assert found.description == load_backbone(str(folder), device="cpu").description


def _evenly(module: torch.nn.Module) -> int:
    """Every layer is as large as all that lies beside the layers."""
    return 4 if hasattr(module, "get_decoder") else 1


def test_layers_are_shared_out_by_their_bytes() -> None:
    config = tiny_model("llava").config
    config.text_config.num_hidden_layers = 40
    devices = [torch.device("cuda", index) for index in range(4)]
    for spares_first, most in ((False, 12), (True, 14)):
        places = device_map(config, devices, spares_first=spares_first)
        names = [f"model.language_model.layers.{index}" for index in range(40)]
        lie = [places.pop(name).index for name in names]
        assert lie == sorted(lie)
        counts = [lie.count(index) for index in range(4)]
        assert counts[0] == 0 if spares_first else 0 < counts[0] < counts[1]
        assert max(counts[1:]) <= most
        assert max(counts[1:]) - min(counts[1:]) <= 1
        assert set(places.values()) == {devices[0]}


@pytest.mark.parametrize("device", ["balanced", "balanced_low_0"])
def test_with_one_device_or_none_a_backbone_lies_whole(
    device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (0, 1):
        monkeypatch.setattr(VISIBLE, lambda count=count: [stand_in(0)] * count)
        found = load_backbone(str(folder), device=device)
        assert {one.device.type for one in found.model.parameters()} == {"cpu"}


@pytest.mark.parametrize("device", ["sequential", '{"": "cpu"}'])
def test_other_ways_to_spread_are_refused_in_words(device: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="evenly or not at all: wanted balanced"):
        load_backbone(str(folder), device=device)


def test_what_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VISIBLE, lambda: [stand_in(0), stand_in(1)])
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigurationError, match="wanted the package accelerate"):
        load_backbone(str(folder), device="balanced")
