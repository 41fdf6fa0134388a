import pytest
import torch

from app.method.backbone.loading import Backbone
from app.method.training.distillation import TrainingResult, train
from tests.fakes.models.backbones import tiny_backbone
from tests.fakes.models.training_runs import CONFIG, EXAMPLES


@pytest.fixture(scope="session")
def learner() -> Backbone:
    """A backbone whose answers a shift can change: its head is sharp."""
    backbone = tiny_backbone()
    with torch.no_grad():
        sharp = backbone.model.get_parameter("lm_head.weight")
        sharp.mul_(20)
    return backbone


@pytest.fixture(scope="session")
def saved() -> list[bytes]:
    """The checkpoints of `result`, once it is there."""
    return []


@pytest.fixture(scope="session")
def result(learner: Backbone, saved: list[bytes]) -> TrainingResult:
    return train(learner, EXAMPLES, CONFIG, on_checkpoint=saved.append)
