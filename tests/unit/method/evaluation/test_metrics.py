import pytest

from app.core.errors import InvalidInputError
from app.method.evaluation.metrics import (
    exact_match,
    find_scorer,
    mean_interval,
    normalize_vqa,
    vqa_accuracy,
    vqa_accuracy_normalized,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("Yes.", ["yes"], 1.0),
        ("  dark   blue ", ["Dark Blue"], 1.0),
        ("blue", ["green", "blue"], 1.0),
        ("blue shape", ["blue"], 0.0),
        ("", ["blue"], 0.0),
    ],
)
def test_exact_match_forgives_case_space_and_edges(
    prediction: str, answers: list[str], score: float
) -> None:
    assert exact_match(prediction, answers) == score


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The dog", "dog"),
        ("Two dogs!", "2 dogs"),
        ("dont know", "don't know"),
        ("shouldnt've", "shouldn't've"),
        ("y'alld've", "y'all'd've"),
        ("twas", "'twas"),
        # The official table turns this one round and leaves those out.
        ("somebody'd", "somebodyd"),
        ("lets im shes", "lets im shes"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("u.s.", "us"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("2. 5.0", "2 5.0"),
        (".5", ".5"),
        ("none", "0"),
    ],
)
def test_the_vqa_normalisation(text: str, wanted: str) -> None:
    assert normalize_vqa(text) == wanted


def test_unanimous_answers_are_compared_as_they_are() -> None:
    assert vqa_accuracy("a dog", ["a dog"] * 10) == 1.0
    assert vqa_accuracy("dog", ["a dog"] * 10) == 0.0
    assert vqa_accuracy_normalized("dog", ["a dog"] * 10) == 1.0


def test_the_vqa_score_counts_the_other_annotators() -> None:
    answers = ["dog"] * 3 + ["cat"] * 7
    assert vqa_accuracy("dog", answers) == pytest.approx((3 * 2 / 3 + 7 * 1.0) / 10)
    assert vqa_accuracy("The dog!", answers) == vqa_accuracy("dog", answers)
    assert vqa_accuracy("bird", answers) == 0.0


def test_intervals_hold_the_mean_and_stay_in_bounds() -> None:
    for right, count in ((0, 5), (5, 5), (3, 5), (250, 500)):
        mean, low, high = wilson_interval(right, count)
        assert 0.0 <= low <= mean <= high <= 1.0
    assert wilson_interval(0, 5)[2] > 0
    assert wilson_interval(5, 5)[1] < 1


def test_more_items_narrow_the_interval() -> None:
    (_, low, high), (_, nearer, farther) = wilson_interval(5, 10), wilson_interval(500, 1000)
    assert farther - nearer < (high - low) / 5


def test_graded_scores_get_the_normal_interval() -> None:
    mean, low, high = mean_interval([0.0, 0.3, 0.6, 0.9, 1.0, 0.3] * 20)
    assert low < mean < high
    assert mean == pytest.approx(3.1 / 6)
    assert mean_interval([0.0, 1.0, 1.0]) == wilson_interval(2, 3)


def test_no_items_and_no_such_scorer_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        wilson_interval(0, 0)
    with pytest.raises(InvalidInputError, match="at least one"):
        mean_interval([])
    with pytest.raises(InvalidInputError, match="wanted exact-match, vqa"):
        find_scorer("bleu")
    assert find_scorer("vqa") is vqa_accuracy
