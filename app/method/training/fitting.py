"""The optimiser steps of a run: order of queries, measuring, checkpoints."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.method.training.batches import Row
from app.method.training.checkpoints import Checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.loop import TrainLoop, TrainState, restored_state
from app.method.training.plan import epoch_batches
from app.method.training.progress import Phase, Steps
from app.method.training.student import LOSS_NAMES, Student
from app.method.training.teacher import TeacherCache

# A coordinate of 1 in a vector is this share of the stream's mean one in its layer.
_UNIT: Final = 0.3


def initial_vectors(
    backbone: Backbone, *, norms: Float[Tensor, " layers"], seed: int
) -> InContextVectors:
    """Where a training starts: nearly zero, in units of each layer's stream.

    `norms` are those of `residual_norms`.
    """
    start = InContextVectors.initial(
        backbone.num_layers, backbone.hidden_size, generator=torch.Generator().manual_seed(seed)
    )
    return start.weighted(_UNIT * norms / backbone.hidden_size**0.5)


def fit(
    loop: TrainLoop,
    teacher: TeacherCache,
    found: Checkpoint | None,
    *,
    config: TrainingConfig,
    num_steps: int,
    phase: Phase = "student",
) -> Steps[TrainState]:
    """Takes the optimiser steps, from the start or from where a checkpoint was made.

    `found` is the checkpoint to go on from; only the run proper, `student`, keeps checkpoints.

    Returns:
        How it went; its `best` has the vectors to keep.

    Raises:
        JobCancelledError: Someone asked to stop; a checkpoint was made before.
        SteeringError: The vectors could not be applied in full.
    """
    student = Student(
        loop.backbone,
        config,
        initial=initial_vectors(loop.backbone, norms=loop.norms, seed=config.seed),
        num_steps=num_steps,
        num_sets=loop.plan.num_sets,
        features=loop.features,
        done=found,
    )
    state = TrainState() if found is None else restored_state(found)
    keeps = phase == "student"
    batch_size = loop.plan.batch_size
    loop.reporter.begin(phase, num_steps, done_before=state.step, items_per_step=batch_size)
    near = teacher.on(loop.backbone.device)
    try:
        while state.step < num_steps:
            yield from _step(
                loop, student, teacher=near, state=state, config=config, num_steps=num_steps
            )
            if loop.reporter.is_stop_wanted:
                if keeps:
                    yield loop.checkpoint(student, teacher, state)
                loop.reporter.stop_if_asked()
            elif keeps and state.step % config.checkpoint_every == 0:
                yield loop.checkpoint(student, teacher, state)
        if keeps:
            yield loop.checkpoint(student, teacher, state)
        if config.keep == "last" or not state.best:
            state.best_step, state.best = state.step, student.snapshot()
    finally:
        student.close()
    return state


def _step(
    loop: TrainLoop,
    student: Student,
    *,
    teacher: TeacherCache,
    state: TrainState,
    config: TrainingConfig,
    num_steps: int,
) -> Steps[None]:
    plan = loop.plan
    epoch, place = divmod(state.step, plan.steps_per_epoch)
    lengths = [len(lesson.query.question) for lesson in plan.lessons[: plan.num_queries]]
    batches = epoch_batches(lengths, batch_size=plan.batch_size, epoch=epoch, seed=config.seed)
    learners = [(plan.draw(query, epoch=epoch), plan.sets(query)) for query in batches[place]]
    rows = [
        Row(lesson=plan.lessons[draw], draw=draw, set=one)
        for draw, sets in learners
        for one in sets
    ]
    rate = student.rate
    losses = yield from student.step(rows, teacher=teacher)
    state.losses.append([losses[name] for name in LOSS_NAMES])
    state.step += 1
    if state.step % config.evaluate_every == 0 or state.step == num_steps:
        yield from _measure(loop, student, state)
    if state.step % config.report_every == 0 or state.step == num_steps:
        yield loop.reporter.progress(state.step, losses=losses, learning_rate=rate)


def _measure(loop: TrainLoop, student: Student, state: TrainState) -> Steps[None]:
    """Measures on held-out items and remembers the best vectors."""
    queries = loop.queries
    if not queries:
        return
    answers = yield from loop.measure(queries, shifts=student.shifts)
    right = sum(answer.is_right for answer in answers)
    loss = sum(answer.loss for answer in answers) / len(answers)
    loop.reporter.held_out_accuracy = right / len(queries)
    if (right, -loss) > (state.best_right, -state.best_loss):
        state.best_step, state.best_right, state.best_loss = state.step, right, loss
        state.best = student.snapshot()
