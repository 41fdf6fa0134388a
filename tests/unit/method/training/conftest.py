import pytest
import torch

from app.method.backbone.loading import Backbone
from tests.fakes.models.backbones import tiny_backbone


@pytest.fixture(scope="session")
def learner() -> Backbone:
    """A backbone whose answers a shift can change: its head is sharp."""
    backbone = tiny_backbone()
    with torch.no_grad():
        sharp = backbone.model.get_parameter("lm_head.weight")
        sharp.mul_(20)
    return backbone
