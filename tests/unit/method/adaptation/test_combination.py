from collections.abc import Callable
from typing import Any

import pytest
import torch

from app.core.errors import InvalidDatasetError, JobCancelledError
from app.core.jobs import RULES, Rule
from app.method.adaptation.combination import CombinationResult, combination_steps
from app.method.adaptation.problem import Problem
from app.method.backbone.examples import Episode
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.method.steps import finish
from app.method.training.answers import answer_episodes
from app.method.training.progress import Reporter, TrainingProgress
from tests.fakes.models.backbones import HIDDEN, LAYERS, tiny_examples
from tests.fakes.models.steered import random_vectors


def part(seed: int) -> InContextVectors:
    generator = torch.Generator().manual_seed(seed)
    return random_vectors(LAYERS, HIDDEN, generator=generator).scaled(200.0)


def combined(
    backbone: Backbone,
    rule: Rule,
    *,
    count: int = 24,
    on_event: Callable[[Any], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CombinationResult:
    problem = Problem(
        items=tiny_examples(count),
        validation=(),
        features=FeatureCache(backbone),
    )
    reporter = Reporter(should_stop=should_stop)
    parts = [part(0), part(1), part(2)]
    return finish(
        combination_steps(problem, parts, rule=rule, reporter=reporter), on_event=on_event
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_combination_stands_beside_its_best_part(backbone: Backbone, rule: Rule) -> None:
    heard: list[object] = []
    made, compared, each = combined(backbone, rule, on_event=heard.append)
    weights = made.weights
    assert sum(weights) == pytest.approx(1.0)
    assert min(weights) >= 0.0
    wanted = sum(weight * part(place).shift() for place, weight in enumerate(weights))
    torch.testing.assert_close(made.vectors.shift(), wanted, atol=1e-3, rtol=1e-4)
    # Half of the pictures measure.
    assert compared.items == 12
    assert set(compared.conditions) == {"m2iv", "best_part", "zero_shot", "majority"}
    assert compared.conditions["best_part"].accuracy == each[made.best].accuracy
    difference = compared.conditions["m2iv"].accuracy - compared.conditions["best_part"].accuracy
    assert compared.gains["best_part"].mean == pytest.approx(difference)
    if rule == "best":
        assert compared.conditions["m2iv"] == compared.conditions["best_part"]
    told = [event for event in heard if isinstance(event, TrainingProgress)]
    phases = [event.phase for event in told]
    assert list(dict.fromkeys(phases)) == ["features", "evaluate"]
    # The combination, no vector and three parts answer twelve items each.
    assert (told[-1].step, told[-1].num_steps) == (60, 60)


def test_others_may_use_the_backbone_between_two_passes(backbone: Backbone) -> None:
    features = FeatureCache(backbone)
    episodes = [Episode(query=item, context=()) for item in tiny_examples(1)]

    def loss(_event: object = None) -> float:
        answers = finish(answer_episodes(features, episodes, token_budget=512, max_rows=1))
        return answers[0].loss

    alone = loss()
    seen: set[float] = set()
    combined(backbone, "learned", count=16, on_event=lambda _event: seen.add(loss()))
    assert seen == {alone}


def test_too_few_items_are_refused(backbone: Backbone) -> None:
    with pytest.raises(InvalidDatasetError, match=r"wanted at least 16 .* found 14"):
        combined(backbone, "mean", count=14)


def test_it_ends_when_somebody_asks(backbone: Backbone) -> None:
    heard: list[object] = []
    with pytest.raises(JobCancelledError):
        combined(backbone, "learned", on_event=heard.append, should_stop=lambda: len(heard) > 3)
    assert len(heard) < 8
