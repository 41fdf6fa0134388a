from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch

from app.core.errors import (
    CorruptDataError,
    InvalidDatasetError,
    InvalidInputError,
    JobCancelledError,
    OutOfDeviceMemoryError,
)
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import TENSOR_NAMES
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult, train
from app.method.training.progress import TrainingProgress
from tests.fakes.backbones import tiny_backbone, tiny_examples

EXAMPLES = tiny_examples(40)
CONFIG = TrainingConfig(
    shots=2,
    num_queries=8,
    contexts_per_query=2,
    epochs=3,
    batch_size=4,
    held_out_fraction=0.25,
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
def learner() -> Backbone:
    """A backbone whose answers a shift can change: its head is sharp."""
    backbone = tiny_backbone()
    with torch.no_grad():
        sharp = backbone.model.get_parameter("lm_head.weight")
        sharp.mul_(20)
    return backbone


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
    config = replace(CONFIG, epochs=12, vector_learning_rate=0.2, mimicry_weight=0.0)
    found = train(learner, EXAMPLES, config)
    assert found.losses[-1]["supervision"] < 0.5 * found.losses[0]["supervision"]
    for parameter, kept in zip(learner.model.parameters(), before, strict=True):
        assert torch.equal(parameter, kept)
        assert parameter.grad is None
    assert not learner.model._forward_hooks
    assert not learner.model.training


def test_the_student_comes_nearer_to_its_teacher(learner: Backbone) -> None:
    config = replace(CONFIG, epochs=12, vector_learning_rate=0.02, supervision_weight=0.0)
    losses = [step["mimicry"] for step in train(learner, EXAMPLES, config).losses]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_a_teacher_that_is_never_right_is_not_followed(learner: Backbone) -> None:
    config = replace(CONFIG, epochs=1, mimicry_of="right")
    found = train(learner, EXAMPLES, config)
    assert found.teacher_accuracy == 0.0
    assert [step["mimicry"] for step in found.losses] == [0.0] * len(found.losses)
    alone = train(learner, EXAMPLES, replace(config, mimicry_weight=0.0))
    assert same_vectors(found, alone)


def test_equal_runs_give_equal_vectors_and_another_seed_gives_others(
    learner: Backbone, result: TrainingResult
) -> None:
    state = torch.get_rng_state()
    assert same_vectors(train(learner, EXAMPLES, CONFIG), result)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same_vectors(train(learner, EXAMPLES, replace(CONFIG, seed=1)), result)


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


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    learner: Backbone, result: TrainingResult
) -> None:
    store = MemoryStore()
    train(learner, EXAMPLES, CONFIG, checkpoint=store)
    assert len(store.saved) == len(result.losses)
    earlier = MemoryStore(store.saved[:2])
    # How often something is told or kept makes no other run of it.
    config = replace(CONFIG, report_every=3, checkpoint_every=100)
    assert same_vectors(train(learner, EXAMPLES, config, checkpoint=earlier), result)
    finished = MemoryStore(store.saved)
    assert train(learner, EXAMPLES, CONFIG, checkpoint=finished).held_out == result.held_out


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(learner: Backbone) -> None:
    store = MemoryStore()
    train(learner, EXAMPLES, CONFIG, checkpoint=store)
    with pytest.raises(InvalidInputError, match="another training"):
        train(learner, EXAMPLES, replace(CONFIG, seed=5), checkpoint=store)
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


def test_the_result_has_a_key_and_a_fair_report(result: TrainingResult) -> None:
    assert result.key.centroid.shape == result.key.exemplars.shape[1:]
    assert 0 < result.key.threshold <= 1.0
    assert result.held_out is not None
    assert result.held_out.items == len(result.provenance["held_out"])
    assert 0.0 <= result.teacher_accuracy <= 1.0


def test_without_held_out_items_the_last_vectors_are_kept(learner: Backbone) -> None:
    found = train(learner, EXAMPLES, replace(CONFIG, held_out_fraction=0.0, epochs=1))
    assert found.held_out is None
    assert len(found.losses) == 2


@pytest.mark.parametrize(("branches", "silent"), [("attention", "mlp"), ("mlp", "attention")])
def test_one_branch_alone_leaves_the_other_at_zero(
    branches: Literal["attention", "mlp"], silent: str, learner: Backbone
) -> None:
    found = train(learner, EXAMPLES, replace(CONFIG, epochs=1, branches=branches))
    assert not any(found.vectors.norms()[silent])
    assert all(found.vectors.norms()[branches])
    assert found.losses[0]["synergy"] == 0.0


def test_smaller_passes_give_the_same_steps(learner: Backbone, result: TrainingResult) -> None:
    found = train(learner, EXAMPLES, replace(CONFIG, token_budget=70))
    for small, whole in zip(found.losses, result.losses, strict=True):
        assert small == pytest.approx(whole, rel=1e-3, abs=1e-4)


def test_recomputing_activations_gives_the_same_vectors(learner: Backbone) -> None:
    plain = train(learner, EXAMPLES, replace(CONFIG, epochs=1))
    saving = train(learner, EXAMPLES, replace(CONFIG, epochs=1, gradient_checkpointing=True))
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
    def fill(progress: TrainingProgress) -> None:
        if progress.phase == "teacher":
            raise torch.OutOfMemoryError

    report: Callable[[TrainingProgress], None] = fill
    with pytest.raises(OutOfDeviceMemoryError, match="token_budget"):
        train(learner, EXAMPLES, CONFIG, on_step=report)
