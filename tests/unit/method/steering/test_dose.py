import pytest
import torch

from app.method.steering.dose import dose_of, residual_norms
from app.method.steering.injection import inject
from tests.fakes.models.backbones import tiny_backbone


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
