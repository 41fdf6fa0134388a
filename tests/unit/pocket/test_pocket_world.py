import easy_vqa
import numpy as np
import pytest

from tools.pocket.pool import normalise, render_pool
from tools.pocket.questions import KIND_SHARES, sample_question
from tools.pocket.words import LANGUAGES, SYNONYMS, Lexicon, plain_lexicon, sample_lexicon
from tools.pocket.world import (
    ATTRIBUTES,
    COLORS,
    SHAPES,
    SIDE_PIXELS,
    Scene,
    render_scene,
    sample_scene,
)


def scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [sample_scene(rng) for _ in range(count)]


def test_same_seed_draws_the_same_pool_and_another_seed_another() -> None:
    first, again, other = (render_pool(8, seed=seed) for seed in (1, 1, 2))
    assert first.scenes == again.scenes
    assert bool((first.pixels == again.pixels).all())
    assert not bool((first.pixels == other.pixels).all())
    assert len(first) == 8


def test_every_value_of_every_attribute_occurs() -> None:
    drawn = scenes(2000)
    for attribute, values in ATTRIBUTES.items():
        assert {scene.value(attribute) for scene in drawn} == set(values)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_scene_shows_its_colour_on_its_ground(shape: int) -> None:
    rng = np.random.default_rng(shape)
    scene = Scene(shape=shape, color=0, size=1, count=0, background=0)
    pixels = np.asarray(render_scene(scene, rng), dtype=float)
    assert pixels.shape == (SIDE_PIXELS, SIDE_PIXELS, 3)
    distance = np.abs(pixels - np.array(COLORS["red"])).max(axis=2)
    assert 0.01 < (distance < 60).mean() < 0.5
    assert (pixels.min(axis=2) > 190).mean() > 0.4


def test_large_objects_cover_more_than_small_ones() -> None:
    def share(size: int) -> float:
        rng = np.random.default_rng(3)
        scene = Scene(shape=0, color=6, size=size, count=0, background=0)
        images = [np.asarray(render_scene(scene, rng)) for _ in range(20)]
        return float(np.mean([(image.max(axis=2) < 90).mean() for image in images]))

    assert share(1) > 2 * share(0) > 0


def test_pixels_are_normalised_to_plus_minus_one() -> None:
    values = normalise(render_pool(4, seed=0).pixels)
    assert -1.0 <= float(values.min()) < 0 < float(values.max()) <= 1.0


def test_no_question_of_this_world_is_a_question_of_easy_vqa() -> None:
    foreign = set(easy_vqa.get_train_questions()[0]) | set(easy_vqa.get_test_questions()[0])
    rng = np.random.default_rng(0)
    own = {sample_question(scene, rng).text for scene in scenes(8_000)}
    assert len(own) > 1000
    assert not own & foreign


def test_verdicts_are_balanced_and_follow_the_scene() -> None:
    rng = np.random.default_rng(1)
    asked = [sample_question(scene, rng, kind="presence") for scene in scenes(2000)]
    assert 0.45 < np.mean([question.value == "yes" for question in asked]) < 0.55
    scene = Scene(shape=0, color=0, size=0, count=0, background=0)
    for _ in range(300):
        question = sample_question(scene, rng, kind="absence")
        shown = [word for word in (*SYNONYMS["circle"], *SYNONYMS["red"]) if word in question.text]
        if question.value == "no":
            assert shown, question


@pytest.mark.parametrize("kind", sorted(set(KIND_SHARES) & set(ATTRIBUTES)))
def test_a_question_for_an_attribute_is_answered_by_its_value(kind: str) -> None:
    rng = np.random.default_rng(2)
    for scene in scenes(50):
        assert sample_question(scene, rng, kind=kind).value == scene.value(kind)


def test_every_value_has_a_word_in_every_language() -> None:
    wanted = {value for values in ATTRIBUTES.values() for value in values}
    assert set(SYNONYMS) == wanted
    for words in LANGUAGES.values():
        assert set(words) == wanted | {"yes", "no"}


def test_a_lexicon_never_says_two_values_of_an_attribute_alike() -> None:
    rng = np.random.default_rng(4)
    for lexicon in [plain_lexicon(), *(sample_lexicon(rng) for _ in range(200))]:
        for values in ATTRIBUTES.values():
            assert len({lexicon.words[value] for value in values}) == len(values)


def test_wording_differs_between_lexicons_and_phrases_wrap_it() -> None:
    rng = np.random.default_rng(5)
    said = {sample_lexicon(rng).answer("teal") for _ in range(200)}
    assert {"teal", "turquoise", "cyan", "petrol"} <= said
    assert Lexicon(words={"teal": "cyan"}, phrase="it is {}").answer("teal") == "it is cyan"
