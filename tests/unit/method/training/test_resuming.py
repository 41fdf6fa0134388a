"""Trainings that are stopped, killed or closed, and those that go on from their checkpoints."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from app.core.errors import (
    CorruptDataError,
    InvalidInputError,
    JobCancelledError,
    OutOfDeviceMemoryError,
)
from app.method.backbone.loading import Backbone
from app.method.steering.injection import ShiftHooks
from app.method.steps import OffDevice, finish
from app.method.training.checkpoints import Checkpoint, decode_checkpoint, encode_checkpoint
from app.method.training.distillation import TrainingResult, train, training_steps
from app.method.training.progress import Event, TrainingProgress
from tests.fakes.models.training_runs import CONFIG, EXAMPLES, FEW, MemoryStore, same_vectors


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
            **store.kept(),
            should_stop=lambda: len(steps) == stop_after,
        )
    resumed = train(learner, EXAMPLES, CONFIG, on_step=note, **store.kept())
    assert steps == list(range(1, len(result.losses) + 1))
    assert same_vectors(resumed, result)
    assert resumed.losses == result.losses
    assert resumed.held_out == result.held_out
    assert resumed.teacher_accuracy == result.teacher_accuracy
    assert resumed.seconds > 0


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    learner: Backbone, result: TrainingResult, saved: list[bytes]
) -> None:
    # One a step, and one at the end.
    assert len(saved) == len(result.losses) + 1
    earlier = MemoryStore(saved[:2])
    # How often something is told or kept makes no other run of it.
    config = CONFIG.changed(report_every=3, checkpoint_every=100)
    assert same_vectors(train(learner, EXAMPLES, config, **earlier.kept()), result)
    finished = MemoryStore(saved)
    assert train(learner, EXAMPLES, CONFIG, **finished.kept()).held_out == result.held_out


def test_a_resumed_run_keeps_nothing_older_than_what_it_goes_on_from(learner: Backbone) -> None:
    config = CONFIG.changed(trial_steps=1)

    def kept(checkpoint: bytes | None = None) -> list[Checkpoint]:
        found: list[Checkpoint] = []

        def note(event: Event) -> None:
            if isinstance(event, Checkpoint):
                found.append(event)

        resume = None if checkpoint is None else partial(decode_checkpoint, checkpoint)
        finish(training_steps(learner, EXAMPLES, config, resume=resume), on_event=note)
        return found

    first = kept()
    assert [one.step for one in first[:4]] == [0, 0, 1, 2]
    after_one_trial, after_two_steps = (kept(encode_checkpoint(first[place])) for place in (0, 3))
    assert [one.step for one in after_one_trial] == [one.step for one in first[1:]]
    assert [one.step for one in after_two_steps] == [one.step for one in first[4:]]


@pytest.mark.usefixtures("result")
def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(
    learner: Backbone, saved: list[bytes]
) -> None:
    with pytest.raises(InvalidInputError, match="another training"):
        train(learner, EXAMPLES, CONFIG.changed(seed=5), checkpoint=saved[-1])
    with pytest.raises(CorruptDataError):
        train(learner, EXAMPLES, CONFIG, checkpoint=b"no checkpoint")


@pytest.mark.parametrize(
    "changes",
    [{"question": "another?"}, {"answers": ("another",)}, {"image": EXAMPLES[-1].image}],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.usefixtures("result")
def test_items_that_were_changed_make_another_run(
    changes: dict[str, Any], learner: Backbone, saved: list[bytes]
) -> None:
    examples = [replace(EXAMPLES[0], **changes), *EXAMPLES[1:]]
    with pytest.raises(InvalidInputError, match="another training"):
        train(learner, examples, CONFIG, checkpoint=saved[-1])


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


SEARCHED = FEW.changed(trial_steps=2)


@pytest.fixture(scope="module")
def searched(learner: Backbone) -> TrainingResult:
    return train(learner, EXAMPLES, SEARCHED)


@pytest.mark.parametrize("stop_in", ["search", "student"])
def test_a_search_goes_on_where_it_was_stopped(
    stop_in: str, learner: Backbone, searched: TrainingResult
) -> None:
    store, seen = MemoryStore(), list[str]()
    with pytest.raises(JobCancelledError):
        train(
            learner,
            EXAMPLES,
            SEARCHED,
            on_step=lambda progress: seen.append(progress.phase),
            **store.kept(),
            should_stop=lambda: seen.count(stop_in) >= 3,
        )
    resumed = train(learner, EXAMPLES, SEARCHED, **store.kept())
    assert same_vectors(resumed, searched)
    assert resumed.recipe == searched.recipe


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
