"""Trainings on few items, of which all teach and all measure."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import TENSOR_NAMES
from app.method.steps import finish
from app.method.training.distillation import TrainingResult, train
from app.method.training.plan import make_plan
from app.method.training.student import Student, sets_of
from app.method.training.teacher import compute_teacher
from tests.fakes.models.steered import random_vectors
from tests.fakes.models.training_runs import EXAMPLES, FEW


@pytest.fixture(scope="module")
def few(learner: Backbone) -> TrainingResult:
    return train(learner, EXAMPLES, FEW)


def test_few_items_all_ask_and_demonstrate_and_measure(few: TrainingResult) -> None:
    plan, items = few.plan, {*range(len(EXAMPLES))}
    assert {*plan.queries} <= items
    assert {*plan.support} == {*plan.measured} == items
    assert few.held_out is not None
    assert few.held_out.items == len(EXAMPLES)
    for episode in plan.episodes:
        shown = {item.image_id for item in episode.context}
        assert shown
        assert episode.query.image_id not in shown


@pytest.mark.parametrize("num_queries", [1, 2, 3])
def test_every_item_has_vectors_that_measure_it_however_few_queries_there_are(
    num_queries: int,
) -> None:
    rows = np.zeros((len(EXAMPLES), 4), dtype=np.float32)
    for seed in range(6):
        plan = make_plan(EXAMPLES, rows, FEW.changed(num_queries=num_queries, seed=seed))
        assert max(plan.measured_sets) < plan.num_sets
        assert all(plan.sets(query) for query in range(plan.num_queries))


def test_an_item_is_measured_by_vectors_that_learnt_nothing_of_it() -> None:
    changed = [
        replace(example, answers=("zebra",)) if example.id == EXAMPLES[0].id else example
        for example in EXAMPLES
    ]
    rows = np.zeros((len(EXAMPLES), 4), dtype=np.float32)
    plan = make_plan(changed, rows, FEW.changed(num_queries=100))
    own = plan.measured_sets[plan.measured.index(0)]
    learnt = [
        episode
        for number, episode in enumerate(plan.episodes)
        if own in plan.sets(number % plan.num_queries)
    ]
    assert learnt
    seen = {example.answer for episode in learnt for example in (episode.query, *episode.context)}
    assert "zebra" not in seen
    assert all(0 in plan.sets(query) for query in range(plan.num_queries))


def test_sets_beside_each_other_learn_as_each_would_alone(learner: Backbone) -> None:
    """The set of all queries ends where it would without the others' rows in its passes."""
    plan = make_plan(EXAMPLES, np.zeros((len(EXAMPLES), 4), dtype=np.float32), FEW)
    episodes = plan.episodes[:6]
    teacher = finish(
        compute_teacher(
            FeatureCache(learner), episodes, temperature=1.0, top_k=0,
            token_budget=2000, max_rows=16,
        )
    )  # fmt: skip
    ends = []
    for num_sets in (1, 3):
        student = Student(
            FeatureCache(learner),
            FEW,
            initial=random_vectors(
                learner.num_layers,
                learner.hidden_size,
                generator=torch.Generator().manual_seed(0),
            ),
            num_steps=10,
            episodes=episodes,
            teacher=teacher,
            num_sets=num_sets,
        )
        rows = [
            (draw, one)
            for draw in range(len(episodes))
            for one in range(num_sets)
            if one == 0 or draw % num_sets != one
        ]
        for _ in range(3):
            finish(student.step(rows))
        ends.append(sets_of(student.snapshot())[0])
        student.close()
    for name in TENSOR_NAMES:
        torch.testing.assert_close(
            getattr(ends[0], name), getattr(ends[1], name), rtol=1e-3, atol=1e-4
        )


def test_more_shots_than_demonstrations_use_those_there_are(learner: Backbone) -> None:
    found = train(learner, EXAMPLES[:8], FEW.changed(shots=16, max_steps=2))
    counts = [len(episode.context) for episode in found.plan.episodes]
    assert all(0 < count < 8 for count in counts)
    assert found.held_out is not None
    assert found.held_out.shots < 8
    assert found.shots == max(counts) < 8
