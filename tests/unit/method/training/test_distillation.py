from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from app.core.errors import (
    CorruptDataError,
    InvalidDatasetError,
    InvalidInputError,
    JobCancelledError,
    OutOfDeviceMemoryError,
)
from app.core.pixels import PIXELS_VERSION
from app.core.vector_card import read_card
from app.core.vector_file import decode_vector_file
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks
from app.method.steering.vectors import TENSOR_NAMES, InContextVectors
from app.method.steps import OffDevice, finish
from app.method.training.batches import Row
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult, train, training_steps
from app.method.training.plan import make_plan
from app.method.training.progress import TrainingProgress
from app.method.training.selection.search import weight_candidates
from app.method.training.student import Student, sets_of
from app.method.training.teacher import compute_teacher
from app.worker.training.results import encode_result, report_of
from tests.fakes.models.backbones import tiny_examples

EXAMPLES = tiny_examples(40)
CONFIG = TrainingConfig(
    shots=2,
    num_queries=8,
    contexts_per_query=2,
    epochs=3,
    batch_size=4,
    held_out_fraction=0.25,
    min_held_out=0,
    cross_fit_below=0,
    evaluate_every=2,
    trial_steps=0,
    checkpoint_every=1,
    report_every=1,
    token_budget=2000,
    # The teacher of a random backbone is hardly ever right.
    mimicry_of="all",
)


class MemoryStore:
    """Keeps every checkpoint; the last one is loaded."""

    def __init__(self, saved: Sequence[bytes] = ()) -> None:
        self.saved = list(saved)

    def load(self) -> bytes | None:
        return self.saved[-1] if self.saved else None

    def save(self, data: bytes) -> None:
        self.saved.append(data)


@pytest.fixture(scope="module")
def result(learner: Backbone) -> TrainingResult:
    return train(learner, EXAMPLES, CONFIG)


def same_vectors(first: TrainingResult, second: TrainingResult) -> bool:
    return all(
        torch.equal(getattr(first.vectors, name), getattr(second.vectors, name))
        for name in TENSOR_NAMES
    )


def test_training_moves_the_answers_and_leaves_the_backbone_alone(learner: Backbone) -> None:
    before = [parameter.clone() for parameter in learner.model.parameters()]
    config = CONFIG.changed(epochs=12, vector_learning_rate=0.2, mimicry_weight=0.0)
    found = train(learner, EXAMPLES, config)
    assert found.losses[-1]["supervision"] < 0.5 * found.losses[0]["supervision"]
    for parameter, kept in zip(learner.model.parameters(), before, strict=True):
        assert torch.equal(parameter, kept)
        assert parameter.grad is None
    assert not learner.model._forward_hooks
    assert not learner.model.training


def test_the_student_comes_nearer_to_its_teacher(learner: Backbone) -> None:
    config = CONFIG.changed(epochs=12, vector_learning_rate=0.02, supervision_weight=0.0)
    losses = [step["mimicry"] for step in train(learner, EXAMPLES, config).losses]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_a_teacher_that_is_never_right_is_not_followed(learner: Backbone) -> None:
    config = CONFIG.changed(epochs=1, mimicry_of="right")
    found = train(learner, EXAMPLES, config)
    assert found.teacher_accuracy == 0.0
    assert [step["mimicry"] for step in found.losses] == [0.0] * len(found.losses)
    alone = train(learner, EXAMPLES, config.changed(mimicry_weight=0.0))
    assert same_vectors(found, alone)


def test_equal_runs_give_equal_vectors_and_another_seed_gives_others(
    learner: Backbone, result: TrainingResult
) -> None:
    state = torch.get_rng_state()
    assert same_vectors(train(learner, EXAMPLES, CONFIG), result)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same_vectors(train(learner, EXAMPLES, CONFIG.changed(seed=1)), result)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    stop_after: int, learner: Backbone, result: TrainingResult
) -> None:
    store = MemoryStore()
    steps: list[int] = []

    def note(progress: TrainingProgress) -> None:
        if progress.phase == "student":
            steps.append(progress.step)

    with pytest.raises(JobCancelledError):
        train(
            learner,
            EXAMPLES,
            CONFIG,
            on_step=note,
            checkpoint=store,
            should_stop=lambda: len(steps) == stop_after,
        )
    resumed = train(learner, EXAMPLES, CONFIG, on_step=note, checkpoint=store)
    assert steps == list(range(1, len(result.losses) + 1))
    assert same_vectors(resumed, result)
    assert resumed.losses == result.losses
    assert resumed.held_out == result.held_out
    assert resumed.teacher_accuracy == result.teacher_accuracy
    assert resumed.seconds > 0


@pytest.mark.parametrize("num_sets", [1, 3])
def test_a_resumed_run_of_full_batches_is_bit_equal(num_sets: int, learner: Backbone) -> None:
    whole_batch = CONFIG if num_sets == 1 else FEW
    config = whole_batch.changed(
        optimizer="lbfgs", epochs=None, max_steps=6, min_steps=6, evaluate_every=3,
        checkpoint_every=1,
    )  # fmt: skip
    whole = train(learner, EXAMPLES, config)
    store, steps = MemoryStore(), list[int]()
    with pytest.raises(JobCancelledError):
        train(
            learner,
            EXAMPLES,
            config,
            on_step=lambda progress: steps.append(progress.step),
            checkpoint=store,
            should_stop=lambda: steps[-1:] == [4],
        )
    assert same_vectors(train(learner, EXAMPLES, config, checkpoint=store), whole)
    assert len(whole.losses) == 6


def test_full_batches_reach_a_lower_loss_in_as_many_passes(learner: Backbone) -> None:
    labels = CONFIG.changed(mimicry_weight=0.0, synergy_weight=0.0, epochs=12, batch_size=8)
    ends = {
        name: train(learner, EXAMPLES, labels.changed(optimizer=name)).losses[-1]["supervision"]
        for name in ("adamw", "lbfgs")
    }
    assert ends["lbfgs"] < 0.8 * ends["adamw"]


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    learner: Backbone, result: TrainingResult
) -> None:
    store = MemoryStore()
    train(learner, EXAMPLES, CONFIG, checkpoint=store)
    # One a step, and one at the end.
    assert len(store.saved) == len(result.losses) + 1
    earlier = MemoryStore(store.saved[:2])
    # How often something is told or kept makes no other run of it.
    config = CONFIG.changed(report_every=3, checkpoint_every=100)
    assert same_vectors(train(learner, EXAMPLES, config, checkpoint=earlier), result)
    finished = MemoryStore(store.saved)
    assert train(learner, EXAMPLES, CONFIG, checkpoint=finished).held_out == result.held_out


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(learner: Backbone) -> None:
    store = MemoryStore()
    train(learner, EXAMPLES, CONFIG, checkpoint=store)
    with pytest.raises(InvalidInputError, match="another training"):
        train(learner, EXAMPLES, CONFIG.changed(seed=5), checkpoint=store)
    with pytest.raises(CorruptDataError):
        train(learner, EXAMPLES, CONFIG, checkpoint=MemoryStore([b"no checkpoint"]))


@pytest.mark.parametrize("phase", ["features", "teacher", "evaluate"])
def test_every_phase_can_be_stopped(phase: str, learner: Backbone) -> None:
    seen: list[str] = []
    with pytest.raises(JobCancelledError):
        train(
            learner,
            EXAMPLES,
            CONFIG,
            on_step=lambda progress: seen.append(progress.phase),
            should_stop=lambda: phase in seen,
        )
    assert seen[-1] == phase


def test_progress_covers_every_phase(learner: Backbone) -> None:
    reports: list[TrainingProgress] = []
    found = train(learner, EXAMPLES, CONFIG, on_step=reports.append)
    phases = list(dict.fromkeys(report.phase for report in reports))
    assert phases == ["features", "teacher", "student", "evaluate"]
    for report in reports:
        assert 0 < report.step <= report.num_steps
        assert report.items_per_second > 0
    student = [report for report in reports if report.phase == "student"]
    assert [report.losses for report in student] == found.losses
    assert student[0].eta_seconds is not None
    assert student[-1].eta_seconds == 0.0
    assert student[-1].held_out_accuracy is not None
    assert student[0].learning_rate == pytest.approx(CONFIG.vector_learning_rate)


def test_the_provenance_tells_roles_and_draws(result: TrainingResult) -> None:
    record = result.provenance
    pictures = {example.id: example.image_id for example in EXAMPLES}
    roles = [
        {pictures[item] for item in record[role]} for role in ("queries", "support", "held_out")
    ]
    assert all(roles)
    assert not roles[0] & roles[1]
    assert not roles[2] & (roles[0] | roles[1])
    assert len(record["contexts"]) == 2 * len(record["queries"])
    first, second = (
        next(c for c in part if c["query"] == record["queries"][0])
        for part in (record["contexts"], reversed(record["contexts"]))
    )
    assert sorted(first["demonstrations"]) == sorted(second["demonstrations"])
    assert set(first["demonstrations"]) <= set(record["support"])
    assert TrainingConfig.from_dict(record["config"]) == CONFIG
    assert record["library_versions"]["torch"]
    assert record["pixels"] == PIXELS_VERSION


def test_the_result_has_a_key_and_a_fair_report(result: TrainingResult) -> None:
    assert result.key is not None
    assert 0 < result.key.image_width < result.key.exemplars.shape[1]
    assert -1.0 <= result.key.threshold <= 1.0
    assert 0 < result.key.text_threshold <= 1.0
    assert result.held_out is not None
    assert result.held_out.items == len(result.provenance["held_out"])
    assert 0.0 <= result.teacher_accuracy <= 1.0


def test_items_of_text_alone_are_learnt_from_and_no_part_of_the_key(learner: Backbone) -> None:
    mixed = [
        replace(example, image=None) if place % 3 == 2 else example
        for place, example in enumerate(EXAMPLES)
    ]
    key = train(learner, mixed, CONFIG.changed(epochs=1)).key
    assert key is not None
    lengths = np.linalg.norm(key.exemplars[:, : key.image_width], axis=1)
    assert len(lengths) == sum(example.image is not None for example in mixed)
    np.testing.assert_allclose(lengths, np.sqrt(0.5), atol=1e-5)


def test_a_task_of_texts_alone_has_no_key(learner: Backbone) -> None:
    texts = [replace(example, image=None) for example in EXAMPLES]
    result = train(learner, texts, CONFIG.changed(epochs=1))
    assert result.key is None
    config = CONFIG.changed(epochs=1)
    content = encode_result(learner, result, config=config, dataset="texts")
    card = read_card(decode_vector_file(content)[1])
    assert card is not None
    assert card.key is None
    assert report_of(result)["is_found_by_auto"] is False


def test_without_held_out_items_the_last_vectors_are_kept(learner: Backbone) -> None:
    found = train(learner, EXAMPLES, CONFIG.changed(held_out_fraction=0.0, epochs=1))
    assert found.held_out is None
    assert found.verdict.status == "unproven"
    assert len(found.losses) == 2


FEW = CONFIG.changed(cross_fit_below=1000, epochs=None, max_steps=6)


@pytest.fixture(scope="module")
def few(learner: Backbone) -> TrainingResult:
    return train(learner, EXAMPLES, FEW)


def test_few_items_all_ask_and_demonstrate_and_measure(few: TrainingResult) -> None:
    ids = {example.id for example in EXAMPLES}
    record = few.provenance
    assert {*record["queries"]} <= ids
    assert {*record["support"]} == {*record["held_out"]} == ids
    assert few.held_out is not None
    assert few.held_out.items == len(EXAMPLES)
    pictures = {example.id: example.image_id for example in EXAMPLES}
    for context in record["contexts"]:
        shown = {pictures[item] for item in context["demonstrations"]}
        assert shown
        assert pictures[context["query"]] not in shown


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
        lesson
        for number, lesson in enumerate(plan.lessons)
        if own in plan.sets(number % plan.num_queries)
    ]
    assert learnt
    seen = {example.answer for lesson in learnt for example in (lesson.query, *lesson.context)}
    assert "zebra" not in seen
    assert all(0 in plan.sets(query) for query in range(plan.num_queries))


def test_sets_beside_each_other_learn_as_each_would_alone(learner: Backbone) -> None:
    """The set of all queries ends where it would without the others' rows in its passes."""
    plan = make_plan(EXAMPLES, np.zeros((len(EXAMPLES), 4), dtype=np.float32), FEW)
    lessons = plan.lessons[:6]
    teacher = finish(
        compute_teacher(
            learner, lessons, features=FeatureCache(learner), temperature=1.0, top_k=0,
            token_budget=2000, max_rows=16,
        )
    )  # fmt: skip
    ends = []
    for num_sets in (1, 3):
        student = Student(
            learner,
            FEW,
            initial=InContextVectors.initial(
                learner.num_layers,
                learner.hidden_size,
                generator=torch.Generator().manual_seed(0),
            ),
            num_sets=num_sets,
            features=FeatureCache(learner),
        )
        rows = [
            Row(lesson=lesson, draw=draw, set=one)
            for draw, lesson in enumerate(lessons)
            for one in range(num_sets)
            if one == 0 or draw % num_sets != one
        ]
        for _ in range(3):
            finish(student.step(rows, teacher=teacher, rate_factor=1.0))
        ends.append(sets_of(student.snapshot())[0])
        student.close()
    for name in TENSOR_NAMES:
        torch.testing.assert_close(
            getattr(ends[0], name), getattr(ends[1], name), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("stop_in", ["search", "student"])
def test_a_search_goes_on_where_it_was_stopped(stop_in: str, learner: Backbone) -> None:
    config = FEW.changed(trial_steps=2)
    whole = train(learner, EXAMPLES, config)
    store, seen = MemoryStore(), list[str]()
    with pytest.raises(JobCancelledError):
        train(
            learner,
            EXAMPLES,
            config,
            on_step=lambda progress: seen.append(progress.phase),
            checkpoint=store,
            should_stop=lambda: seen.count(stop_in) >= 3,
        )
    resumed = train(learner, EXAMPLES, config, checkpoint=store)
    assert same_vectors(resumed, whole)
    assert resumed.recipe == whole.recipe


def test_the_search_never_adds_a_loss_that_was_switched_off() -> None:
    found = weight_candidates(CONFIG.changed(mimicry_weight=0.0))
    assert [one.mimicry_weight for one in found] == [0.0] * len(found)
    found = weight_candidates(CONFIG.changed(supervision_weight=0.0, synergy_weight=0.0))
    assert [one.supervision_weight for one in found] == [0.0]


def test_more_shots_than_demonstrations_use_those_there_are(learner: Backbone) -> None:
    found = train(learner, EXAMPLES[:8], FEW.changed(shots=16, max_steps=2))
    contexts = found.provenance["contexts"]
    assert all(0 < len(context["demonstrations"]) < 8 for context in contexts)
    assert found.held_out is not None
    assert found.held_out.shots < 8
    shown = max(len(one["demonstrations"]) for one in found.provenance["contexts"])
    assert found.shots == shown < 8


@pytest.mark.parametrize(("branches", "silent"), [("attention", "mlp"), ("mlp", "attention")])
def test_one_branch_alone_leaves_the_other_at_zero(
    branches: Literal["attention", "mlp"], silent: str, learner: Backbone
) -> None:
    found = train(learner, EXAMPLES, CONFIG.changed(epochs=1, branches=branches))
    assert not any(found.vectors.norms()[silent])
    assert all(found.vectors.norms()[branches])
    assert found.losses[0]["synergy"] == 0.0


def test_smaller_passes_give_the_same_steps(learner: Backbone, result: TrainingResult) -> None:
    found = train(learner, EXAMPLES, CONFIG.changed(token_budget=70))
    for small, whole in zip(found.losses, result.losses, strict=True):
        assert small == pytest.approx(whole, rel=1e-3, abs=1e-4)


def test_recomputing_activations_gives_the_same_vectors(learner: Backbone) -> None:
    plain = train(learner, EXAMPLES, CONFIG.changed(epochs=1))
    saving = train(learner, EXAMPLES, CONFIG.changed(epochs=1, gradient_checkpointing=True))
    for name in TENSOR_NAMES:
        torch.testing.assert_close(getattr(saving.vectors, name), getattr(plain.vectors, name))
    assert not learner.model.training


def test_the_synergy_gradient_cannot_drown_the_others(learner: Backbone) -> None:
    def moved(**changes: float) -> float:
        config = TrainingConfig.from_dict({**CONFIG.to_dict(), "epochs": 6, **changes})
        losses = train(learner, EXAMPLES, config).losses
        return losses[0]["supervision"] - losses[-1]["supervision"]

    alone = moved(synergy_weight=0.0)
    assert moved() > 0.7 * alone > 0


@pytest.mark.parametrize("examples", [[], EXAMPLES[:2]], ids=["no items", "one picture"])
def test_too_few_items_are_refused(examples: list[Example], learner: Backbone) -> None:
    with pytest.raises(InvalidDatasetError, match="found"):
        train(learner, examples, CONFIG)


def test_a_full_accelerator_is_a_library_error(learner: Backbone) -> None:
    steps = training_steps(learner, EXAMPLES, CONFIG)
    event = next(steps)
    while not isinstance(event, TrainingProgress):
        event = next(steps)
    with pytest.raises(OutOfDeviceMemoryError, match="token_budget"):
        steps.throw(torch.OutOfMemoryError())


def num_shift_hooks(backbone: Backbone) -> int:
    hooks = [
        hook
        for module in backbone.model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    owners = [getattr(getattr(hook, "func", hook), "__self__", None) for hook in hooks]
    return sum(isinstance(owner, ShiftHooks) for owner in owners)


def test_a_training_that_is_closed_leaves_the_backbone_alone(learner: Backbone) -> None:
    config = CONFIG.changed(gradient_checkpointing=True)
    steps = training_steps(learner, EXAMPLES, config)
    answer = None
    phase = ""
    while phase != "student":
        event = steps.send(answer)
        assert not learner.model.training
        answer = event.work() if isinstance(event, OffDevice) else None
        phase = event.phase if isinstance(event, TrainingProgress) else phase
    assert num_shift_hooks(learner) > 0
    steps.close()
    assert num_shift_hooks(learner) == 0
