import numpy as np
import pytest

from app.core.errors import InvalidInputError
from app.method.keys.task_key import MAX_EXEMPLARS, build_task_key

WIDTH = 16


def rows_of(*, image: int, text: int, count: int, seed: int = 0) -> np.ndarray:
    """Items around one picture and one question, each of an axis."""
    rng = np.random.default_rng([seed, image, text])
    rows = rng.normal(size=(count, 2 * WIDTH)) * 0.1
    rows[:, image] += 1.0
    rows[:, WIDTH + text] += 1.0
    for part in (slice(0, WIDTH), slice(WIDTH, None)):
        rows[:, part] *= 0.5**0.5 / np.linalg.norm(rows[:, part], axis=1, keepdims=True)
    return rows.astype(np.float32)


def test_most_unseen_items_reach_both_thresholds_and_others_miss_one() -> None:
    key = build_task_key(rows_of(image=0, text=0, count=400), image_width=WIDTH)

    def reaches(rows: np.ndarray) -> np.ndarray:
        images = 2 * (rows[:, :WIDTH] @ key.exemplars[:, :WIDTH].T).max(1)
        texts = 2 * (rows[:, WIDTH:] @ key.exemplars[:, WIDTH:].T).max(1)
        return np.asarray((images >= key.threshold) & (texts >= key.text_threshold))

    assert len(key.exemplars) == MAX_EXEMPLARS
    assert 0.9 < reaches(rows_of(image=0, text=0, count=400, seed=1)).mean() < 1
    assert not reaches(rows_of(image=1, text=0, count=100)).any()
    assert not reaches(rows_of(image=0, text=1, count=100)).any()


def share_of_pictures(rows: np.ndarray, **unseen: int) -> float:
    """Of pictures that made no key, the share that reaches the threshold of these items' key."""
    key = build_task_key(rows, image_width=WIDTH)
    images = rows_of(**unseen, count=400, seed=99)[:, :WIDTH]
    return float(((2 * images @ key.exemplars[:, :WIDTH].T).max(1) >= key.threshold).mean())


def test_few_items_let_unseen_ones_through_whichever_they_are() -> None:
    shares = [
        share_of_pictures(rows_of(image=0, text=0, count=24, seed=seed), image=0, text=0)
        for seed in range(20)
    ]
    assert np.mean(shares) > 0.97
    assert min(shares) > 0.9


def test_pictures_of_several_questions_let_unseen_pictures_through() -> None:
    rows = np.repeat(rows_of(image=0, text=0, count=30), 3, axis=0)
    rows[:, WIDTH:] = rows_of(image=0, text=0, count=90, seed=1)[:, WIDTH:]
    assert share_of_pictures(rows, image=0, text=0) > 0.9
    assert share_of_pictures(rows, image=1, text=0) == 0


def test_one_picture_of_many_questions_is_found_by_itself_alone() -> None:
    rows = rows_of(image=0, text=0, count=30)
    rows[:, :WIDTH] = rows[0, :WIDTH]
    assert build_task_key(rows, image_width=WIDTH).threshold == pytest.approx(1.0, abs=1e-3)


def test_repeated_questions_need_to_be_met_exactly() -> None:
    rows = rows_of(image=0, text=0, count=30)
    rows[:, WIDTH:] = rows[0, WIDTH:]
    assert build_task_key(rows, image_width=WIDTH).text_threshold == pytest.approx(1.0, abs=1e-3)


def test_a_single_item_makes_a_key() -> None:
    key = build_task_key(rows_of(image=0, text=0, count=1), image_width=WIDTH)
    assert len(key.exemplars) == 1
    assert key.threshold == pytest.approx(1.0, abs=1e-3)


def test_equal_items_and_seed_make_equal_keys() -> None:
    rows = rows_of(image=0, text=0, count=200)
    one, other = (build_task_key(rows, image_width=WIDTH, seed=3) for _ in range(2))
    assert np.array_equal(one.exemplars, other.exemplars)
    assert one.threshold == other.threshold


def test_no_item_makes_no_key() -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        build_task_key(np.zeros((0, 2 * WIDTH), np.float32), image_width=WIDTH)
