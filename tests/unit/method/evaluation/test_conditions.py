from dataclasses import replace

import pytest
import torch
from PIL import Image

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.evaluation.conditions import (
    choose_demonstrations,
    in_context,
    steered,
    zero_shot,
)
from app.method.steering.vectors import InContextVectors
from tests.fakes.models.backbones import tiny_backbone, tiny_examples

EXAMPLES = tiny_examples(20)


@pytest.fixture(scope="module")
def cache() -> FeatureCache:
    return FeatureCache(tiny_backbone())


def shade(red: int, *, name: str) -> Example:
    image = Picture.of(Image.new("RGB", (16, 16), (red, 0, 255 - red)))
    return Example(image=image, question="what?", answers=("a",), image_id=name, id=name)


def test_random_demonstrations_never_show_the_asked_picture(cache: FeatureCache) -> None:
    condition = in_context("icl", EXAMPLES, shots=16, seed=1)
    chosen = choose_demonstrations(condition, EXAMPLES[:5], cache)
    for example, demonstrations in zip(EXAMPLES, chosen, strict=False):
        assert len({shown.id for shown in demonstrations}) == 16
        assert example.image_id not in {shown.image_id for shown in demonstrations}
    assert chosen == choose_demonstrations(condition, EXAMPLES[:5], cache)
    other = choose_demonstrations(in_context("icl", EXAMPLES, seed=2), EXAMPLES[:5], cache)
    assert chosen != other
    assert chosen[0] != chosen[2]


def test_the_most_similar_pictures_are_taken_and_the_nearest_stands_last(
    cache: FeatureCache,
) -> None:
    support = [shade(level, name=f"s{level}") for level in range(0, 256, 15)]
    asked = [shade(61, name="asked"), shade(200, name="s195")]
    first, second = choose_demonstrations(in_context("knn_icl", support, shots=3), asked, cache)
    assert first[-1].id == "s60"
    assert {shown.id for shown in first} == {"s45", "s60", "s75"}
    assert "s195" not in {shown.id for shown in second}
    assert len(second) == 3


def test_the_nearest_is_near_in_picture_and_question(cache: FeatureCache) -> None:
    near = shade(61, name="near")
    support = [shade(60, name="picture"), replace(shade(70, name="both"), question="is it red?")]
    asked = [replace(near, question="is it red?")]
    for condition in (
        in_context("knn_icl", support, shots=1),
        in_context("nearest_copy", support, shots=1),
    ):
        ((shown,),) = choose_demonstrations(condition, asked, cache)
        assert shown.id == "both"
        assert condition.num_labels == 2


def test_balanced_demonstrations_show_every_answer(cache: FeatureCache) -> None:
    support = [
        replace(shade(level, name=f"s{level}"), answers=("rare" if level == 0 else "usual",))
        for level in range(30)
    ]
    condition = in_context("icl_balanced", support, shots=4)
    asked = [shade(200, name="asked")] * 3
    for shown in choose_demonstrations(condition, asked, cache):
        assert sorted(item.answer for item in shown) == ["rare", "usual", "usual", "usual"]
    assert condition.num_labels == 4


def test_other_conditions_show_nothing(cache: FeatureCache) -> None:
    tensors = {"attention_vectors": (3, 32), "mlp_vectors": (3, 32)}
    vectors = InContextVectors(
        **{name: torch.zeros(shape) for name, shape in tensors.items()},
        attention_weights=torch.zeros(3),
        mlp_weights=torch.zeros(3),
    )
    for condition in (zero_shot(), steered(vectors, strength=2.0)):
        assert choose_demonstrations(condition, EXAMPLES[:2], cache) == [(), ()]
        assert condition.shots == 0


@pytest.mark.parametrize("shots", [0, 21])
def test_more_shots_than_support_are_refused(shots: int) -> None:
    with pytest.raises(InvalidInputError, match="20 items"):
        in_context("icl", EXAMPLES, shots=shots)
    with pytest.raises(InvalidInputError, match=f"found {shots} shots"):
        in_context("knn_icl", EXAMPLES, shots=shots)
