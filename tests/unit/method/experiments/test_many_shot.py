from pathlib import Path

import pytest
import torch

from app.core.errors import InvalidInputError
from app.core.jobs import RULES, Rule
from app.method.adaptation.problem import Problem
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.experiments import trial as trial_module
from app.method.experiments.methods import find_method
from app.method.experiments.suite import load_suite
from app.method.experiments.trial import Trial, combine_chunks
from app.method.steering.vectors import InContextVectors
from tests.fakes.models.backbones import HIDDEN, LAYERS
from tests.fakes.models.steered import random_vectors
from tests.fakes.suites import tiny_suite


def part(seed: int) -> InContextVectors:
    return random_vectors(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(seed)).scaled(
        200.0
    )


@pytest.fixture
def trial(backbone: Backbone, tmp_path: Path) -> Trial:
    (task,) = load_suite(str(tiny_suite(tmp_path))).tasks
    problem = Problem(
        items=task.load("train"),
        validation=task.load("validation", limit=4),
        features=FeatureCache(backbone),
    )
    made = Trial(problem=problem, task=task, test=task.load("test", limit=2), shots=(1,))
    made.chunks[8] = ([part(0), part(1), part(2)], 1.5)
    return made


@pytest.mark.parametrize("rule", RULES)
def test_a_combination_is_the_weighted_sum_of_its_parts(trial: Trial, rule: Rule) -> None:
    found, seconds = combine_chunks(trial, rule=rule, size=8)
    parts, _ = trial.chunks[8]
    assert sum(found.weights) == pytest.approx(1.0)
    assert min(found.weights) >= 0.0
    wanted = sum(weight * one.shift() for weight, one in zip(found.weights, parts, strict=True))
    torch.testing.assert_close(found.vectors.shift(), wanted, atol=1e-4, rtol=1e-4)
    assert seconds > 1.5


def test_chunks_have_enough_items_each_and_are_trained_once(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Result:
        vectors = part(4)

    def train(_backbone: object, items: list[object], *_others: object, **_more: object) -> Result:
        sizes.append(len(items))
        return Result()

    monkeypatch.setattr(trial_module, "train", train)
    trial.chunks.clear()
    find_method("chunks_mean_10")(trial)
    find_method("chunks_best_10")(trial)
    # 16 items: six are too few for a chunk of their own.
    assert sizes == [16]
    find_method("chunks_mean_8")(trial)
    assert sizes == [16, 8, 8]


def test_chunks_that_are_too_small_are_refused(trial: Trial) -> None:
    with pytest.raises(InvalidInputError, match="wanted at least 8, found 4"):
        find_method("chunks_mean_4")(trial)
    with pytest.raises(InvalidInputError, match="found chunks_luck_16"):
        find_method("chunks_luck_16")
