from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from app.core.errors import InvalidInputError
from app.method.backbone.embedding import embed
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from tests.fakes.models.backbones import tiny_backbone, tiny_examples

EXAMPLES = tiny_examples(12)
IMAGES = [example.image for example in EXAMPLES]
QUESTIONS = [example.question for example in EXAMPLES]


def test_rows_have_length_one_and_both_halves_weigh_the_same(
    backbone: Backbone, features: FeatureCache
) -> None:
    rows = embed(features, IMAGES, QUESTIONS)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-5)
    half = rows.shape[1] // 2
    assert np.linalg.norm(rows[:, :half], axis=1) == pytest.approx(0.5**0.5, abs=1e-5)
    assert np.array_equal(rows, embed(FeatureCache(backbone), IMAGES, QUESTIONS))


def test_a_missing_half_is_zero(backbone: Backbone, features: FeatureCache) -> None:
    rows = embed(features, [IMAGES[0], None], [None, QUESTIONS[0]])
    whole = embed(features, IMAGES[:1], QUESTIONS[:1])[0]
    half = len(whole) // 2
    assert not rows[0, half:].any()
    assert not rows[1, :half].any()
    assert float(rows[0] @ whole) == pytest.approx(0.5**0.5, abs=1e-5)
    assert float(rows[1] @ whole) == pytest.approx(0.5**0.5, abs=1e-5)
    text_only = embed(FeatureCache(backbone), [None], [QUESTIONS[0]])
    assert np.allclose(text_only[0], rows[1], atol=1e-6)


def test_the_same_question_is_nearer_than_another(backbone: Backbone) -> None:
    asked = ["what color is the shape?", "what color is the shape", "who wrote this long novel?"]
    rows = embed(FeatureCache(backbone), [None] * 3, asked)
    assert rows[0] @ rows[1] > 0.9
    assert rows[0] @ rows[2] < 0.6


def test_what_a_family_multiplies_its_embeddings_by_brings_no_questions_together() -> None:
    backbone, asked = tiny_backbone(), [QUESTIONS[0], "who wrote this long novel?"]
    table: Any = backbone.model.get_input_embeddings()
    with torch.no_grad():
        table.weight += 0.5
    wanted = embed(FeatureCache(backbone), [None] * 2, asked)
    tokens, width = table.weight.shape
    scaled = Gemma3TextScaledWordEmbedding(tokens, width, 0, embed_scale=8.0)
    scaled.weight = table.weight
    backbone.model.set_input_embeddings(scaled)
    assert np.allclose(embed(FeatureCache(backbone), [None] * 2, asked), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "questions"), [([None], [None]), ([None], [" "]), ([None, None], ["a"])]
)
def test_nothing_to_embed_is_refused(
    images: list[None], questions: list[str | None], backbone: Backbone
) -> None:
    with pytest.raises(InvalidInputError):
        embed(FeatureCache(backbone), images, questions)
