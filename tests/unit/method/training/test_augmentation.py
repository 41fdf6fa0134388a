import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.core.errors import InvalidImageError
from app.core.pictures import Picture
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.training.augmentation import augmented
from app.method.training.distillation import TrainingResult, train
from tests.fakes.models.training_runs import CONFIG, EXAMPLES, same_vectors

WIDTH, HEIGHT = 200, 120


def marked() -> Picture:
    """Two black points on white, left and right of the middle."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for x in (60, 140):
        draw.rectangle((x - 3, 57, x + 3, 63), fill="black")
    return Picture.of(image)


def points(view: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Where the two points lie, the left one first."""
    dark = np.argwhere(np.asarray(view.decoded().convert("L")) < 100)[:, ::-1]
    middle = dark[:, 0].mean()
    return dark[dark[:, 0] < middle].mean(0), dark[dark[:, 0] > middle].mean(0)


def test_the_first_view_is_the_picture_itself() -> None:
    picture = marked()
    assert augmented(picture, 0) is picture


def test_views_are_turned_scaled_and_moved_within_their_bounds() -> None:
    found = [points(augmented(marked(), number)) for number in range(1, 65)]
    turned = [math.degrees(math.atan2(*(right - left)[::-1])) for left, right in found]
    scales = [math.dist(left, right) / 80 for left, right in found]
    moved = [np.abs((left + right) / 2 - (100, 60)) for left, right in found]
    assert all(abs(angle) < 12.5 for angle in turned)
    assert min(turned) < -6
    assert max(turned) > 6
    assert all(0.79 < scale < 1.16 for scale in scales)
    assert min(scales) < 0.87
    assert max(scales) > 1.08
    assert all(x <= 0.081 * WIDTH + 0.5 and y <= 0.081 * HEIGHT + 0.5 for x, y in moved)
    assert max(x for x, _ in moved) > 0.05 * WIDTH


def test_a_view_has_the_size_of_its_picture_and_a_ground_like_its_corner() -> None:
    view = augmented(marked(), 3)
    assert view.size == view.decoded().size == (WIDTH, HEIGHT)
    edge = np.asarray(view.decoded())[[0, -1]]
    assert (edge == 255).all()


def test_a_view_is_the_same_every_time_and_unlike_the_others() -> None:
    again = augmented(marked(), 2)
    assert augmented(marked(), 2).digest == again.digest
    assert augmented(marked(), 2).decoded().tobytes() == again.decoded().tobytes()
    digests = {augmented(marked(), number).digest for number in range(9)}
    assert len(digests) == 9


def test_a_view_of_a_damaged_picture_is_refused_as_the_picture_is() -> None:
    whole = marked()
    assert isinstance(whole.source, bytes)
    damaged = Picture(digest=whole.digest, source=whole.source[:-40])
    with pytest.raises(InvalidImageError, match="damaged"):
        augmented(damaged, 1).decoded()


def test_queries_are_shown_with_each_view_in_turn(
    learner: Backbone, result: TrainingResult
) -> None:
    features = FeatureCache(learner)
    found = train(learner, EXAMPLES, CONFIG.changed(augmented_views=1), features=features)
    assert not same_vectors(found, result)
    queries = [EXAMPLES[item].image for item in found.plan.queries]
    assert all(features.is_cached(augmented(image, 1)) for image in queries if image is not None)
    others = [EXAMPLES[item].image for item in (*found.plan.support, *found.plan.measured)]
    assert not any(features.is_cached(augmented(image, 1)) for image in others if image is not None)


def test_the_first_epoch_shows_pictures_as_they_are(
    learner: Backbone, result: TrainingResult
) -> None:
    steps = result.plan.steps_per_epoch
    found = train(learner, EXAMPLES, CONFIG.changed(augmented_views=2))
    assert found.losses[:steps] == result.losses[:steps]
    assert found.losses[steps] != result.losses[steps]


def test_texts_have_no_views(learner: Backbone) -> None:
    texts = [replace(example, image=None) for example in EXAMPLES]
    found = train(learner, texts, CONFIG.changed(augmented_views=2))
    assert same_vectors(found, train(learner, texts, CONFIG))
