import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.method.evaluation.verdict import judge, paired_gain
from app.method.training.answers import AnswerScore
from app.method.training.selection.comparison import compare_answers


def hits(pattern: str, times: int = 1) -> list[bool]:
    return [mark == "1" for mark in pattern] * times


def test_the_gain_counts_only_items_answered_differently() -> None:
    gain = paired_gain(hits("1111100000"), hits("1111000000"))
    assert gain.mean == pytest.approx(0.1)
    assert gain.chance == pytest.approx(0.5)
    assert gain.low < 0 < gain.high


def test_the_chance_is_that_of_tosses_of_a_coin() -> None:
    ours, theirs = [True] * 7 + [False] + [True] * 10, [False] * 7 + [True] + [True] * 10
    wanted = (math.comb(8, 7) + math.comb(8, 8)) / 2**8
    assert paired_gain(ours, theirs).chance == pytest.approx(wanted)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_gain_lies_in_its_interval(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    gain = paired_gain(ours, theirs)
    assert -1 <= gain.low <= gain.high <= 1
    assert 0 < gain.chance <= 1
    back = paired_gain(theirs, ours)
    assert back.mean == -gain.mean
    assert back.low == pytest.approx(-gain.high)


def test_one_item_more_is_not_ready() -> None:
    verdict = judge(
        steered=hits("1" * 21 + "0" * 19),
        zero_shot=hits("1" * 20 + "0" * 20),
        majority=hits("0" * 40),
        demonstrated=hits("1" * 20 + "0" * 20),
    )
    assert verdict.status == "ineffective"
    assert not verdict.looks_random


def test_better_than_zero_shot_but_not_than_the_usual_answer_is_not_ready() -> None:
    verdict = judge(
        steered=hits("1" * 60 + "0" * 40),
        zero_shot=hits("0" * 100),
        majority=hits("1" * 60 + "0" * 40),
        demonstrated=hits("0" * 100),
    )
    assert verdict.status == "ineffective"
    assert "usual answer" in verdict.reason
    assert verdict.looks_random


@pytest.mark.parametrize(
    ("steered", "zero_shot", "status"),
    [
        ("1" * 38 + "00", "1" * 30 + "0" * 10, "ready"),
        ("1" * 30 + "0" * 10, "1" * 38 + "00", "collapsed"),
        ("1" * 10 + "0" * 3, "1" * 9 + "0" * 4, "unproven"),
        ("1" * 180 + "0" * 20, "1" * 180 + "0" * 20, "ineffective"),
    ],
)
def test_the_states(steered: str, zero_shot: str, status: str) -> None:
    verdict = judge(
        steered=hits(steered),
        zero_shot=hits(zero_shot),
        majority=hits("0" * len(steered)),
        demonstrated=hits(zero_shot),
    )
    assert verdict.status == status
    assert verdict.reason.endswith(".")


@pytest.mark.parametrize(("copied", "looks_random"), [(6, True), (54, False)])
def test_answers_that_copying_finds_are_not_random(copied: int, *, looks_random: bool) -> None:
    wrong = [AnswerScore(is_right=False, loss=1.0, num_tokens=18)] * 60
    comparison = compare_answers(
        {"m2iv": wrong, "zero_shot": wrong, "icl": wrong},
        {
            "majority": hits("1" * 6 + "0" * 54),
            "nearest_copy": hits("1" * copied + "0" * (60 - copied)),
        },
        labels={},
        other_labels=60,
    )
    assert comparison.verdict.status == "ineffective"
    assert comparison.verdict.looks_random == looks_random


@pytest.mark.parametrize(("misses", "looks_random"), [(0, False), (1, False), (8, True)])
def test_answers_that_are_nearly_all_the_same_are_not_random(
    misses: int, *, looks_random: bool
) -> None:
    usual = hits("1" * (60 - misses) + "0" * misses)
    verdict = judge(
        steered=usual, zero_shot=hits("0" * 60), majority=usual, demonstrated=hits("0" * 60)
    )
    assert verdict.looks_random == looks_random
