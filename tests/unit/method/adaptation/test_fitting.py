from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from app.method.adaptation import fitting
from app.method.adaptation.fitting import Leaves, Recipe, fit_steps
from app.method.adaptation.problem import Measured, Part, Problem
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import EncodedBatch
from app.method.evaluation.conditions import Applied
from app.method.experiments.methods import BY_GRADIENTS, FITTED
from app.method.steps import finish
from app.method.training.augmentation import augmented
from app.method.training.progress import Steps
from tests.fakes.models.problems import tiny_problem


@pytest.mark.parametrize("name", FITTED)
def test_what_is_fitted_by_gradients_learns_from_views_and_is_measured_on_pictures(
    backbone: Backbone, name: str
) -> None:
    problem = replace(tiny_problem(backbone), augmented_views=1, max_steps=2)
    FITTED[name](problem)
    learnt, chose = (
        [item.image for item in items if item.image is not None]
        for items in (problem.items, problem.validation)
    )
    is_cached = problem.features.is_cached
    assert all(map(is_cached, learnt))
    views = [is_cached(augmented(image, 1)) for image in learnt]
    assert views == [name in BY_GRADIENTS] * len(learnt)
    digests = {image.digest for image in learnt}
    others = [image for image in chose if image.digest not in digests]
    assert others
    assert not any(is_cached(augmented(image, 1)) for image in others)


def sliding(places: list[float], *, rate: float = 0.5) -> Recipe:
    """A number that every step moves down by the rate; where it stands before each is told."""
    told: list[Tensor] = []

    def applied(leaves: Leaves) -> Applied:
        told[:] = [leaves["place"]]
        return lambda _batch: nullcontext()

    def loss(_places: Sequence[int], _batch: EncodedBatch) -> Tensor:
        places.append(told[0].item())
        return told[0].sum()

    return Recipe(
        start=lambda _generator: {"place": torch.zeros(1)}, applied=applied, rate=rate, loss=loss
    )


def moves(problem: Problem, *, rate: float = 0.5) -> list[float]:
    """How far each step but the last went."""
    places: list[float] = []
    finish(fit_steps(problem, sliding(places, rate=rate)))
    return (-torch.tensor(places).diff()).tolist()


def test_a_rate_rises_and_falls_as_a_cosine_to_zero(backbone: Backbone) -> None:
    found = moves(replace(tiny_problem(backbone), max_steps=100))
    assert found[:4] == pytest.approx([0.0, 0.5 / 3, 1.0 / 3, 0.5], abs=0.01)
    assert found[51] == pytest.approx(0.25, rel=0.05)
    assert found[3:] == sorted(found[3:], reverse=True)
    assert found[-1] < 0.001


def test_a_problem_may_have_a_rate_of_its_own(backbone: Backbone) -> None:
    problem = replace(tiny_problem(backbone), rate=0.25)
    assert moves(problem)[0] == pytest.approx(0.25, rel=0.01)
    assert finish(fit_steps(problem, sliding([]))).rate == 0.25


def test_what_validation_did_best_with_is_kept(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([(1, -0.5), (3, -0.9), (3, -0.4), (2, -0.1)])

    def measured(
        _problem: Problem, _held: Sequence[Part], _applied: Applied | None
    ) -> Steps[Measured]:
        yield None
        return next(scores)

    monkeypatch.setattr(fitting, "measure_steps", measured)
    places: list[float] = []
    found = finish(fit_steps(replace(tiny_problem(backbone), max_steps=50), sliding(places)))
    # Looked at before the first step, after every twentieth and after the last.
    assert (found.steps, found.measured) == (40, (3, -0.4))
    assert found.leaves["place"].item() == places[40]
    assert list(scores) == []
