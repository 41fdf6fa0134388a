from typing import Any

import pytest
import torch
from torch import nn

from app.core.errors import UnsupportedBackboneError
from app.method.backbone.loading import backbone_from_parts
from app.method.steering.dose import dose_of, residual_norms
from app.method.steering.injection import inject
from tests.fakes.checkpoints.llava import llava
from tests.fakes.checkpoints.parts import random_model
from tests.fakes.models.backbones import tiny_backbone, tiny_processed_model, tiny_processor
from tests.fakes.models.family_sizes import MINICPM3


def test_the_norms_are_those_of_the_residual_stream() -> None:
    backbone = tiny_backbone()
    norms = residual_norms(backbone)
    assert norms.shape == (backbone.num_layers,)
    assert bool((norms > 0).all())
    longer = residual_norms(backbone)
    assert torch.equal(norms, longer)


def test_a_shift_of_the_streams_length_has_about_its_dose() -> None:
    backbone = tiny_backbone()
    norms = residual_norms(backbone)
    shape = (1, backbone.num_layers, 2, backbone.hidden_size)
    shift = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    strong = 100 * shift
    with inject(backbone.model, strong):
        steered = residual_norms(backbone)
    # What was added in all layers so far is nearly all that the last layer's stream consists of.
    added = strong[0].sum(dim=1).sum(dim=0).norm()
    assert float(steered[-1]) == pytest.approx(float(added), rel=0.2)
    assert dose_of(strong[0], norms) == pytest.approx(100 * dose_of(shift[0], norms), rel=1e-4)


def test_the_dose_is_that_of_the_most_affected_layer() -> None:
    shift = torch.zeros((3, 2, 4))
    shift[1, 0, 0], shift[1, 1, 1] = 3.0, 4.0
    shift[2, 0, 0] = 1.0
    assert dose_of(shift, torch.tensor([1.0, 10.0, 4.0])) == pytest.approx(0.5)
    assert dose_of(shift, torch.tensor([1.0, 10.0, 1.0])) == pytest.approx(1.0)
    assert dose_of(torch.zeros_like(shift), torch.ones(3)) == 0.0


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        # As checkpoints from before these settings were a processor's have them.
        ("patch_size", None, "'NoneType'"),
        ("num_additional_image_tokens", 0, "tokens: 15"),
    ],
)
def test_a_processor_without_the_models_settings_is_called_that(
    setting: str, value: int | None, reason: str
) -> None:
    parts = llava()
    setattr(parts.processor, setting, value)
    backbone = backbone_from_parts(random_model(parts), parts.processor, name="old")
    with pytest.raises(UnsupportedBackboneError, match=f"old cannot be asked .*{reason}"):
        residual_norms(backbone)


@pytest.mark.parametrize(
    "text",
    [
        MINICPM3,
        {"model_type": "beam", "head_dim": 8, "mlp_layer_types": ["dense"] * 3},
    ],
    ids=["scaled", "by-depth"],
)
def test_a_decoder_that_scales_what_its_branches_add_is_refused(text: dict[str, Any]) -> None:
    processor = tiny_processor()
    model = tiny_processed_model(processor, text=text)
    backbone = backbone_from_parts(model, processor, name="scaled")
    with pytest.raises(UnsupportedBackboneError, match="DecoderLayer 0, which scales"):
        residual_norms(backbone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_reason_to_refuse_a_decoder(dtype: torch.dtype) -> None:
    backbone = tiny_backbone()
    nn.Module.to(backbone.model, dtype)
    assert bool((residual_norms(backbone) > 0).all())
