from dataclasses import replace

import pytest

from app.method.backbone.loading import Backbone
from app.method.experiments.methods import BY_GRADIENTS, FITTED
from app.method.training.augmentation import augmented
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
