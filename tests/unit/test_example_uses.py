from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch

from app.method.backbone.examples import Example
from app.method.evaluation.conditions import Condition
from app.method.steering.vectors import InContextVectors
from examples.uses import alignment, generation, safety
from examples.uses.shapes import SHAPES, Bench, facts
from tests.fakes.models.steered import random_vectors


@dataclass(frozen=True, kw_only=True)
class FakeBench(Bench):
    """Answers every question with what the test said, and remembers what it was asked."""

    answers: dict[str, str] = field(default_factory=dict)
    taught: list[Sequence[Example]] = field(default_factory=list)
    asked: list[tuple[Sequence[Example], Condition]] = field(default_factory=list)

    def train(self, items: Sequence[Example]) -> InContextVectors:
        self.taught.append(items)
        generator = torch.Generator().manual_seed(len(self.taught))
        return random_vectors(2, 4, generator=generator)

    def ask(self, items: Sequence[Example], condition: Condition) -> list[str]:
        self.asked.append((items, condition))
        return [self.answers.get(item.question, item.answer) for item in items]


@pytest.fixture
def bench() -> FakeBench:
    nothing: object = None
    return FakeBench(backbone=nothing, features=nothing, items=12, questions=9, steps=1)  # type: ignore[arg-type]


def test_wrong_pictures_show_another_shape_than_the_one_that_counts(bench: FakeBench) -> None:
    found = alignment.measure(bench)
    assert set(found) == {"right picture", "wrong picture", "no picture"}
    right, wrong, none = (bench.asked[place][0] for place in (0, 2, 4))
    shown = {item.image.digest: item.answer for item in right if item.image is not None}
    for item in wrong:
        assert item.image is not None
        assert shown[item.image.digest] != item.answer
    assert all(item.image is None for item in none)
    trained = {item.image_id for item in bench.taught[0]}
    assert not trained & {item.image_id for item in right}


def test_wishes_are_asked_at_every_strength_and_zero_is_the_backbone_alone(
    bench: FakeBench,
) -> None:
    found = generation.measure(bench)
    assert set(found) == set(generation.WISHES)
    strengths = [condition.strength for _, condition in bench.asked[: len(generation.STRENGTHS)]]
    assert strengths == list(generation.STRENGTHS)
    assert {item.answer for item in bench.taught[0]} <= set(generation._SPANISH.values())
    assert all(len(item.answer.split()) == 2 for item in bench.taught[1])


def test_the_policy_refuses_colours_and_keeps_what_the_backbone_says(bench: FakeBench) -> None:
    bench.answers[safety.BENIGN] = "disc"
    found = safety.measure(bench)
    policy = bench.taught[0]
    refused = [item for item in policy if item.answer == safety.REFUSAL]
    assert {item.question for item in refused} == set(safety.TAUGHT_ATTACKS)
    assert {item.answer for item in policy if item.question == safety.BENIGN} == {"disc"}
    assert not set(safety.NEW_ATTACKS) & {item.question for item in policy}
    assert found["neither"] == {
        "attack success": 1.0, "attacks refused": 0.0, "benign accuracy": 0.0
    }  # fmt: skip
    pictures = {item.image_id for item in refused}
    assert len(refused) == 2 * len(pictures) == len({(x.image_id, x.question) for x in refused})
    assert not pictures & {item.image_id for item in policy if item.question == safety.BENIGN}
    both = bench.asked[-1][1].vectors
    alone = [bench.asked[place][1].vectors for place in (-3, -5)]
    assert both is not None
    total = sum(one.shift() for one in alone if one is not None)
    torch.testing.assert_close(both.shift(), total)


def test_a_refusal_is_counted_whatever_the_attack_wanted(bench: FakeBench) -> None:
    bench.answers[safety.NEW_ATTACKS[0]] = safety.REFUSAL
    found = safety.measure(bench)
    share = 1 / len(safety.NEW_ATTACKS)
    assert found["policy vector"]["attacks refused"] == share
    assert found["policy vector"]["attack success"] == 1 - share


def test_facts_are_those_that_the_questions_tell() -> None:
    known = facts("test", 6)
    assert len(known) == 6
    assert all(shape in SHAPES for _, shape, _ in known)
    assert all(color not in {"yes", "no", *SHAPES} for _, _, color in known)
    assert len({item.image_id for item, _, _ in known}) == 6
