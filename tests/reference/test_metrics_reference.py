import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.method.evaluation.metrics import vqa_accuracy_normalized, wilson_interval

WORDS = st.sampled_from(["cat", "dog", "bird"])


def naive_vqa(prediction: str, answers: Sequence[str]) -> float:
    """Every annotator is left out once; agreement with three of the rest is full marks."""
    total = 0.0
    for left_out in range(len(answers)):
        rest = [answer for place, answer in enumerate(answers) if place != left_out]
        total += min(rest.count(prediction) / 3, 1)
    return total / len(answers)


@given(WORDS, st.lists(WORDS, min_size=10, max_size=10))
def test_vqa_accuracy_leaves_one_annotator_out_by_position(
    prediction: str, answers: list[str]
) -> None:
    found = vqa_accuracy_normalized(prediction, answers)
    assert found == pytest.approx(naive_vqa(prediction, answers))


def test_dropping_equal_annotators_instead_would_score_less() -> None:
    answers = ["cat"] * 10
    assert vqa_accuracy_normalized("cat", answers) == 1.0


def naive_bound(share: float, count: int, *, upper: bool) -> float:
    """The true share at which the observed one lies just 1.96 standard errors away."""
    low, high = (share, 1.0) if upper else (0.0, share)
    for _ in range(200):
        middle = (low + high) / 2
        distance = abs(share - middle) / math.sqrt(max(1e-300, middle * (1 - middle) / count))
        is_inside = distance < 1.959963984540054
        if is_inside == upper:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@pytest.mark.parametrize(("right", "count"), [(0, 10), (3, 10), (250, 500), (499, 500), (7, 7)])
def test_the_interval_solves_wilsons_equation(right: int, count: int) -> None:
    mean, low, high = wilson_interval(right, count)
    assert mean == right / count
    assert low == pytest.approx(naive_bound(right / count, count, upper=False), abs=1e-9)
    assert high == pytest.approx(naive_bound(right / count, count, upper=True), abs=1e-9)
