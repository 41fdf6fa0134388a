import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidDatasetError
from app.method.backbone.randomness import generator_for
from app.method.evaluation.conditions import balanced_context, nearest_context
from app.method.training.demonstrations import (
    choose_folds,
    choose_queries,
    draw_context,
    hold_out,
    k_means,
    nearest,
)
from tests.fakes.models.backbones import tiny_examples


def clusters(count: int, *, size: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(count, 6)) * 20
    noise = generator.normal(size=(count, size, 6)) * 0.1
    points: np.ndarray = (centres[:, None] + noise).reshape(-1, 6).astype(np.float32)
    return points


def test_draws_for_one_purpose_do_not_move_another() -> None:
    first = generator_for(3, "epoch", 1).integers(1 << 30)
    assert generator_for(3, "epoch", 1).integers(1 << 30) == first
    others = [
        generator_for(3, "epoch", 2),
        generator_for(4, "epoch", 1),
        generator_for(3, "order", 1),
    ]
    assert all(other.integers(1 << 30) != first for other in others)


def test_k_means_finds_the_groups() -> None:
    points = clusters(4, size=10)
    centres = k_means(points, 8, generator=np.random.default_rng(1))
    distances = np.linalg.norm(points[:, None] - centres[None], axis=-1).min(1)
    assert np.percentile(distances, 50) < 1.0


def test_an_empty_group_keeps_its_centre() -> None:
    points = np.zeros((5, 3), dtype=np.float32)
    centres = k_means(points, 3, generator=np.random.default_rng(1))
    assert np.array_equal(centres, np.zeros((3, 3)))


@given(st.integers(2, 60), st.integers(1, 40), st.integers(0, 5))
def test_queries_and_support_share_no_picture(count: int, wanted: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 4)).astype(np.float32)
    pictures = [f"picture-{index // 2}" for index in range(count)]
    if len(set(pictures)) < 2:
        with pytest.raises(InvalidDatasetError, match="at least 2"):
            choose_queries(features, pictures, num_queries=wanted, seed=seed)
        return
    queries, support = choose_queries(features, pictures, num_queries=wanted, seed=seed)
    assert queries
    assert support
    assert len(queries) <= wanted
    assert queries == tuple(sorted(set(queries)))
    assert not {pictures[item] for item in queries} & {pictures[item] for item in support}


def test_queries_cover_the_groups_of_the_task() -> None:
    points = clusters(5, size=40)
    queries, _ = choose_queries(points, [str(i) for i in range(200)], num_queries=50, seed=2)
    assert {query // 40 for query in queries} == set(range(5))


def test_many_items_are_thinned_before_grouping() -> None:
    features = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    queries, support = choose_queries(features, [str(i) for i in range(500)], num_queries=4, seed=0)
    assert 1 <= len(queries) <= 4
    assert len(support) == 500 - len(queries)


def test_held_out_pictures_take_no_part_in_training() -> None:
    examples = tiny_examples(60)
    training, measuring = hold_out(examples, fraction=0.3, fewest=0, most=100, seed=1)
    assert sorted((*training, *measuring)) == list(range(60))
    assert not {examples[i].image_id for i in training} & {examples[i].image_id for i in measuring}
    assert len(measuring) == pytest.approx(18, abs=2)
    _, few = hold_out(examples, fraction=0.3, fewest=0, most=5, seed=1)
    assert len(few) == 5
    assert set(few) <= set(measuring)
    assert hold_out(examples, fraction=0.0, fewest=9, most=5, seed=1)[1] == ()


def test_enough_items_measure_but_never_more_than_a_quarter() -> None:
    examples = tiny_examples(80)
    held_out = hold_out(examples, fraction=0.05, fewest=12, most=100, seed=1)[1]
    assert len(held_out) == pytest.approx(12, abs=2)
    held_out = hold_out(examples, fraction=0.05, fewest=60, most=100, seed=1)[1]
    assert len(held_out) == pytest.approx(20, abs=2)


def test_folds_deal_pictures_out_evenly() -> None:
    pictures = [f"picture-{index // 2}" for index in range(40)]
    folds = choose_folds(pictures, num_folds=4, seed=3)
    assert sorted(folds) == sorted([0, 1, 2, 3] * 10)
    assert all(folds[index] == folds[index + 1] for index in range(0, 40, 2))
    assert choose_folds(pictures, num_folds=4, seed=4) != folds


def test_balanced_demonstrations_have_as_many_answers_as_there_are() -> None:
    answers = ["yes"] * 30 + ["no"] * 3 + ["red", "Red"]
    chosen = balanced_context(answers, shots=6, query=0, seed=0)
    assert len(set(chosen)) == 6
    found = [answers[place].lower() for place in chosen]
    assert sorted(found) == ["no", "no", "red", "red", "yes", "yes"]
    assert balanced_context(answers, shots=6, query=1, seed=0) != chosen
    assert sorted(balanced_context(answers[:3], shots=8, query=0, seed=0)) == [0, 1, 2]


def test_contexts_are_drawn_without_replacement_and_in_pairs() -> None:
    support = tuple(range(100, 140))
    contexts = [draw_context(support, shots=16, query=3, draw=d, seed=0) for d in range(4)]
    for context in contexts:
        assert len(set(context)) == 16
        assert set(context) <= set(support)
    assert sorted(contexts[0]) == sorted(contexts[1])
    assert contexts[0] != contexts[1]
    assert sorted(contexts[0]) != sorted(contexts[2])
    assert contexts[0] != draw_context(support, shots=16, query=4, draw=0, seed=0)
    assert contexts[0] == draw_context(support, shots=16, query=3, draw=0, seed=0)
    assert len(draw_context(support[:5], shots=16, query=3, draw=0, seed=0)) == 5


def test_the_nearest_demonstration_stands_last() -> None:
    similarities = np.array([0.1, 0.9, 0.5, 0.7], dtype=np.float32)
    assert nearest_context(similarities, shots=3) == (2, 3, 1)
    assert nearest_context(similarities, shots=10) == (0, 2, 3, 1)


def test_nearest_is_the_same_however_many_are_compared_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    points, others = (rng.normal(size=(size, 5)).astype(np.float32) for size in (50, 7))
    distances = ((points[:, None] - others) ** 2).sum(-1)
    monkeypatch.setattr("app.method.training.demonstrations._MOST_PRODUCTS", 3 * len(others))
    assert np.array_equal(nearest(points, others), distances.argmin(1))
