import pytest

from app.method.adaptation.problem import Problem
from app.method.backbone.loading import Backbone
from tests.fakes.models.problems import tiny_problem


@pytest.fixture
def problem(backbone: Backbone) -> Problem:
    return tiny_problem(backbone)
