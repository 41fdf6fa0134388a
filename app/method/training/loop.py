"""The optimiser steps of a run: order of queries, measuring, when it is enough, checkpoints.

Knows when things happen; the arithmetic of a step is the student's.
"""

from typing import Final

import torch

from app.method.steering.vectors import InContextVectors
from app.method.training.batches import Row
from app.method.training.checkpoints import Checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.plan import epoch_batches
from app.method.training.progress import Phase, Steps
from app.method.training.run import Course, Run, restored_course
from app.method.training.student import LOSS_NAMES, Student
from app.method.training.teacher import TeacherCache

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

    Args:
        step: From 0.
        num_steps: The most of the whole run.
        warmup_fraction: Share of them that rises.
        num_cuts: How often held-out items stopped getting better.
    """
    rise = min(1.0, (step + 1) / max(1, round(num_steps * warmup_fraction)))
    left = (num_steps - step) / max(1.0, num_steps * _TAIL)
    return rise * _CUT**num_cuts * min(1.0, _TAIL_END + (1 - _TAIL_END) * left)


def learn(
    run: Run,
    teacher: TeacherCache,
    found: Checkpoint | None,
    *,
    config: TrainingConfig,
    num_steps: int,
    phase: Phase = "student",
) -> Steps[Course]:
    """Takes the optimiser steps, from the start or from where a checkpoint was made.

    Args:
        run: What is worked with.
        teacher: Its predictions for every lesson of the plan, in the CPU's memory.
        found: The checkpoint to go on from.
        config: The settings, with the weights and rate that were chosen.
        num_steps: Most steps.
        phase: What listeners are told; only the run proper keeps checkpoints.

    Returns:
        How it went; its `best` has the vectors to keep.

    Raises:
        JobCancelledError: Someone asked to stop; a checkpoint was made before.
        SteeringError: The vectors could not be applied in full.
    """
    generator = torch.Generator().manual_seed(config.seed)
    student = Student(
        run.backbone,
        config,
        initial=InContextVectors.initial(
            run.backbone.num_layers, run.backbone.hidden_size, generator=generator
        ),
        num_sets=run.plan.num_sets,
        features=run.features,
    )
    course = Course()
    if found is not None:
        course = restored_course(found)
        student.restore(found)
    keeps = phase == "student"
    batch_size = run.plan.batch_size
    run.reporter.begin(phase, num_steps, done_before=course.step, items_per_step=batch_size)
    near = teacher.on(run.backbone.device)
    try:
        while course.step < num_steps and not course.is_over:
            yield from _step(
                run, student, teacher=near, course=course, config=config, num_steps=num_steps
            )
            if run.reporter.is_stop_wanted:
                if keeps:
                    yield run.checkpoint(student, teacher, course)
                run.reporter.stop_if_asked()
            elif keeps and course.step % config.checkpoint_every == 0:
                yield run.checkpoint(student, teacher, course)
        if keeps:
            yield run.checkpoint(student, teacher, course)
        if config.keep == "last" or not course.best:
            course.best = student.snapshot()
    finally:
        student.close()
    return course


def _step(
    run: Run,
    student: Student,
    *,
    teacher: TeacherCache,
    course: Course,
    config: TrainingConfig,
    num_steps: int,
) -> Steps[None]:
    plan = run.plan
    epoch, place = divmod(course.step, plan.steps_per_epoch)
    lengths = [len(lesson.query.question) for lesson in plan.lessons[: plan.num_queries]]
    batches = epoch_batches(lengths, batch_size=plan.batch_size, epoch=epoch, seed=config.seed)
    learners = [(plan.draw(query, epoch=epoch), plan.sets(query)) for query in batches[place]]
    rows = [
        Row(lesson=plan.lessons[draw], draw=draw, set=one)
        for draw, sets in learners
        for one in sets
    ]
    factor = rate_factor(
        course.step,
        num_steps=num_steps,
        warmup_fraction=config.warmup_fraction,
        num_cuts=course.num_cuts,
    )
    losses = yield from student.step(rows, teacher=teacher, rate_factor=factor)
    course.losses.append([losses[name] for name in LOSS_NAMES])
    course.step += 1
    if course.step % config.evaluate_every == 0 or course.step == num_steps:
        yield from _measure(run, student, course, config=config)
    if course.step % config.report_every == 0 or course.step == num_steps or course.is_over:
        yield run.reporter.progress(
            course.step, losses=losses, learning_rate=config.vector_learning_rate * factor
        )


def _measure(run: Run, student: Student, course: Course, *, config: TrainingConfig) -> Steps[None]:
    """Measures on held-out items, remembers the best vectors, cuts the rate and ends the run."""
    queries = run.queries
    if not queries:
        return
    answers = yield from run.measure(queries, shifts=student.shifts)
    right = sum(answer.is_right for answer in answers)
    loss = sum(answer.loss for answer in answers) / len(answers)
    run.reporter.held_out_accuracy = right / len(queries)
    is_news = right > course.best_right or loss < (1 - _NEWS) * course.lowest_loss
    course.lowest_loss = min(loss, course.lowest_loss)
    if (right, -loss) > (course.best_right, -course.best_loss):
        course.best_step, course.best_right, course.best_loss = course.step, right, loss
        course.best = student.snapshot()
    course.num_stale = 0 if is_news else course.num_stale + 1
    if course.num_stale < config.patience or course.step < config.min_steps:
        return
    if course.num_cuts == _MOST_CUTS:
        course.is_over = True
    else:
        course.num_cuts, course.num_stale = course.num_cuts + 1, 0
