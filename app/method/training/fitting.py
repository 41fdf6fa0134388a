"""The optimiser steps of a run: order of queries, measuring, when it is enough, checkpoints."""

from collections.abc import Sequence
from typing import Final

import torch

from app.method.evaluation.verdict import CHANCE, paired_gain
from app.method.steering.dose import residual_norms
from app.method.steering.vectors import InContextVectors
from app.method.training.batches import Row
from app.method.training.checkpoints import Checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.loop import TrainLoop, TrainState, restored_state
from app.method.training.plan import epoch_batches
from app.method.training.progress import Phase, Steps
from app.method.training.student import LOSS_NAMES, Student
from app.method.training.teacher import TeacherCache

# L-BFGS counts in units of the stream: a coordinate of 1 is this share of a token's mean one.
_UNIT: Final = 0.3
_CUT: Final = 0.25
_MOST_CUTS: Final = 1
# The rate falls over the last fifth of the steps, for runs that nothing ends earlier.
_TAIL: Final = 0.2
_TAIL_END: Final = 0.1
# Smaller changes of the held-out loss are no news.
_NEWS: Final = 0.03


def rate_factor(step: int, *, num_steps: int, warmup_fraction: float, num_cuts: int = 0) -> float:
    """The share of the peak learning rates at a step.

    A linear rise, then level; a quarter after a cut; a linear fall over the last fifth.
    """
    rise = min(1.0, (step + 1) / max(1, round(num_steps * warmup_fraction)))
    left = (num_steps - step) / max(1.0, num_steps * _TAIL)
    return rise * _CUT**num_cuts * min(1.0, _TAIL_END + (1 - _TAIL_END) * left)


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
        initial=_start(loop, config),
        num_sets=loop.plan.num_sets,
        features=loop.features,
    )
    state = TrainState()
    if found is not None:
        state = restored_state(found)
        student.restore(found)
    keeps = phase == "student"
    batch_size = loop.plan.batch_size
    loop.reporter.begin(phase, num_steps, done_before=state.step, items_per_step=batch_size)
    near = teacher.on(loop.backbone.device)
    try:
        while state.step < num_steps and not state.is_over:
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
            student.settle()
            state.best = student.snapshot()
    finally:
        student.close()
    return state


def _start(loop: TrainLoop, config: TrainingConfig) -> InContextVectors:
    backbone = loop.backbone
    start = InContextVectors.initial(
        backbone.num_layers,
        backbone.hidden_size,
        generator=torch.Generator().manual_seed(config.seed),
    )
    if config.optimizer == "adamw":
        return start
    return start.weighted(_UNIT * residual_norms(backbone) / backbone.hidden_size**0.5)


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
    epochs: Sequence[int] = (epoch,)
    if config.optimizer == "lbfgs":
        # Curvature is that of one loss, so every step sees all the draws that matter.
        epochs = range(plan.num_draws if config.mimicry_weight else 1)
    learners = [
        (plan.draw(query, epoch=one), plan.sets(query))
        for one in epochs
        for query in batches[place]
    ]
    rows = [
        Row(lesson=plan.lessons[draw], draw=draw, set=one)
        for draw, sets in learners
        for one in sets
    ]
    factor = rate_factor(
        state.step,
        num_steps=num_steps,
        warmup_fraction=config.warmup_fraction,
        num_cuts=state.num_cuts,
    )
    losses = yield from student.step(rows, teacher=teacher, rate_factor=factor)
    state.losses.append([losses[name] for name in LOSS_NAMES])
    state.step += 1
    if state.step % config.evaluate_every == 0 or state.step == num_steps:
        yield from _measure(loop, student, state, config=config)
    rate = config.vector_learning_rate * factor if config.optimizer == "adamw" else 0.0
    if state.step % config.report_every == 0 or state.step == num_steps or state.is_over:
        yield loop.reporter.progress(state.step, losses=losses, learning_rate=rate)


def _measure(
    loop: TrainLoop, student: Student, state: TrainState, *, config: TrainingConfig
) -> Steps[None]:
    """Measures on held-out items, remembers the best vectors, cuts the rate and ends the run."""
    queries = loop.queries
    if not queries:
        return
    answers = yield from loop.measure(queries, shifts=student.shifts)
    hits = [answer.is_right for answer in answers]
    right = sum(hits)
    loss = sum(answer.loss for answer in answers) / len(answers)
    loop.reporter.held_out_accuracy = right / len(queries)
    is_news = right > state.best_right or loss < (1 - _NEWS) * state.lowest_loss
    state.lowest_loss = min(loss, state.lowest_loss)
    if (right, -loss) > (state.best_right, -state.best_loss):
        state.best_step, state.best_right, state.best_loss = state.step, right, loss
        state.best = student.snapshot()
        state.is_above_majority = paired_gain(hits, loop.plan.majority_hits).chance <= CHANCE
    state.num_stale = 0 if is_news else state.num_stale + 1
    # A rule may be found late, and until then the most usual answer is the lowest loss.
    if not state.is_above_majority or state.step < config.min_steps:
        return
    if state.num_stale < config.patience:
        return
    if state.num_cuts == _MOST_CUTS or config.optimizer == "lbfgs":
        state.is_over = True
    else:
        state.num_cuts, state.num_stale = state.num_cuts + 1, 0
