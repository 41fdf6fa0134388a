from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from tests.fakes.models.backbones import HIDDEN, LAYERS, tiny_backbone, tiny_model


@pytest.fixture(scope="session")
def model_of() -> Callable[[str], PreTrainedModel]:
    """Shared models; a test that changes one has to make its own."""
    made: dict[str, PreTrainedModel] = {}

    def get(name: str) -> PreTrainedModel:
        return made.setdefault(name, made.get(name) or tiny_model(name))

    return get


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
def features(backbone: Backbone) -> FeatureCache:
    return FeatureCache(backbone)


@pytest.fixture(scope="session")
def random_shifts() -> Callable[..., Tensor]:
    def make(rows: int, *, seed: int = 7, size: float = 0.3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((rows, LAYERS, 2, HIDDEN), generator=generator) * size

    return make
