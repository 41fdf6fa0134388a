from typing import cast

import numpy as np
import pytest
from PIL import Image, ImageDraw
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.keys.appearance import (
    APPEARANCE_WIDTH,
    CONTOURS_WIDTH,
    appearance,
    contours,
)
from app.method.keys.background import background_families
from app.method.keys.encoder import VERSION, KeyEncoder, space_id
from app.method.keys.whitening import MAX_WIDTH, fit_whitening
from app.method.keys.wording import wording
from tests.fakes.models.backbones import tiny_backbone, tiny_examples

EXAMPLES = tiny_examples(6)
IMAGES = [example.image for example in EXAMPLES]
QUESTIONS = [example.question for example in EXAMPLES]


@pytest.fixture(scope="module")
def encoder() -> KeyEncoder:
    return KeyEncoder(FeatureCache(tiny_backbone()))


def test_both_parts_of_a_row_have_the_same_length(encoder: KeyEncoder) -> None:
    rows = encoder.encode(IMAGES, QUESTIONS)
    width = encoder.image_width
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows[:, :width], axis=1) == pytest.approx(0.5**0.5, abs=1e-5)
    assert np.linalg.norm(rows[:, width:], axis=1) == pytest.approx(0.5**0.5, abs=1e-5)


def test_a_missing_part_is_zero_and_the_other_keeps_its_direction(encoder: KeyEncoder) -> None:
    whole = encoder.encode(IMAGES[:1], QUESTIONS[:1])[0]
    image, text = encoder.encode([IMAGES[0], None], [None, QUESTIONS[0]])
    width = encoder.image_width
    assert not image[width:].any()
    assert not text[:width].any()
    assert np.allclose(image[:width] * 0.5**0.5, whole[:width], atol=1e-6)
    assert np.allclose(text[width:] * 0.5**0.5, whole[width:], atol=1e-6)


def test_another_encoder_of_the_backbone_makes_the_same_rows(encoder: KeyEncoder) -> None:
    again = KeyEncoder(FeatureCache(tiny_backbone())).encode(IMAGES, QUESTIONS)
    assert np.allclose(again, encoder.encode(IMAGES, QUESTIONS), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "questions"), [([None], [None]), ([None], [" "]), ([None, None], ["a"])]
)
def test_nothing_to_embed_is_refused(
    images: list[None], questions: list[str | None], encoder: KeyEncoder
) -> None:
    with pytest.raises(InvalidInputError):
        encoder.encode(images, questions)


def test_the_space_follows_the_backbone(backbone: Backbone) -> None:
    assert space_id(backbone) == space_id(tiny_backbone())
    assert space_id(backbone) != space_id(tiny_backbone(seed=1))


def test_a_family_that_multiplies_its_embeddings_left_the_space_of_its_older_rows() -> None:
    backbone = tiny_backbone()
    assert space_id(backbone).endswith(f"-v{VERSION}")
    table = cast("nn.Embedding", backbone.model.get_input_embeddings())
    tokens, width = table.weight.shape
    backbone.model.set_input_embeddings(Gemma3TextScaledWordEmbedding(tokens, width, 0))
    assert space_id(backbone).endswith(f"-v{VERSION}.1")


def cosine(one: str, other: str) -> float:
    first, second = wording(one), wording(other)
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_case_and_punctuation_of_a_question_do_not_count() -> None:
    assert cosine("What colour is it?", "what colour is it") == pytest.approx(1.0)


def test_a_question_that_shares_words_is_still_another() -> None:
    near = cosine("what color is the shape?", "what size is the shape?")
    assert 0.2 < near < 0.8
    assert cosine("what color is the shape?", "who wrote this long novel?") < 0.3
    assert cosine("is it warm or cold", "or cold is it warm") < 0.95


@pytest.mark.parametrize("text", ["これは何色ですか", "???", "12"])
def test_every_text_has_a_place(text: str) -> None:
    assert np.linalg.norm(wording(text)) > 0


def test_questions_without_spaces_are_read_sign_by_sign() -> None:
    assert cosine("这是什么颜色", "这是什么形状") > 0.3


def test_appearance_does_not_hang_on_size() -> None:
    small = Image.new("RGB", (40, 40), (200, 20, 20))
    large = Image.new("RGB", (400, 400), (200, 20, 20))
    assert appearance(small).shape == (APPEARANCE_WIDTH,)
    assert np.allclose(appearance(small), appearance(large), atol=1e-6)
    assert np.isfinite(appearance(small)).all()


def test_contours_tell_a_polygon_from_a_disc_at_any_size() -> None:
    def drawn(kind: str, side: int) -> Image.Image:
        image = Image.new("RGB", (side, side), "white")
        box = (side // 4, side // 4, side - side // 4, side - side // 4)
        draw = ImageDraw.Draw(image)
        (draw.rectangle if kind == "box" else draw.ellipse)(box, fill="navy")
        return image

    box, disc = contours(drawn("box", 64)), contours(drawn("disc", 64))
    again = contours(drawn("box", 256))
    assert np.abs(box - again).sum() < 0.5 * np.abs(box - disc).sum()
    assert np.isfinite(contours(Image.new("RGB", (8, 8), "teal"))).all()
    assert len(box) == CONTOURS_WIDTH


def test_the_background_is_the_same_each_time() -> None:
    one, other = background_families(), background_families()
    assert [im.tobytes() for im in one[3]] == [im.tobytes() for im in other[3]]
    assert len({im.tobytes() for family in one for im in family}) == sum(map(len, one))


def test_whitening_lets_members_of_a_family_differ_alike_in_every_direction() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([10.0, 1.0, 0.1])
    families = [rng.normal(size=(200, 3)) * scales + rng.normal(size=3) for _ in range(4)]
    whitening = fit_whitening(families)
    within = np.concatenate([(family - family.mean(0)) @ whitening.axes for family in families])
    assert within.std(0) == pytest.approx(np.ones(3), rel=0.1)


def test_wide_features_are_laid_into_fewer_axes() -> None:
    rng = np.random.default_rng(0)
    families = [rng.normal(size=(3, MAX_WIDTH + 100)) for _ in range(3)]
    assert fit_whitening(families).apply(families[0]).shape == (3, MAX_WIDTH)


def test_a_damaged_picture_is_refused(encoder: KeyEncoder) -> None:
    with pytest.raises(InvalidInputError):
        encoder.encode([Picture.of(b"nothing")], ["what?"])
