"""The optimiser steps of a run: order of queries, measuring, keeping the best, checkpoints.

Knows when things happen; the arithmetic of a step is the student's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from jaxtyping import Float32
from torch import Tensor

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.method.training.checkpoints import Checkpoint, CheckpointStore, encode_checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.losses import TeacherLogits
from app.method.training.plan import Plan, epoch_batches
from app.method.training.progress import Reporter
from app.method.training.student import LOSS_NAMES, Student
from app.method.training.teacher import Lesson, TeacherCache, greedy_right

MAX_ROWS: Final = 256


@dataclass(kw_only=True)
class Course:
    """What has come of the optimiser steps so far.

    Attributes:
        step: How many there were.
        losses: Of each step, in the order of `LOSS_NAMES`.
        best_right: Held-out items that the best vectors get right; -1 before the first measurement.
        best: Those vectors by name.
    """

    step: int = 0
    losses: list[list[float]] = field(default_factory=list)
    best_right: int = -1
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What one run works with, from its first step to its report.

    Attributes:
        backbone: Stays frozen.
        config: Settings.
        features: Vision features of all pictures.
        plan: Roles and draws.
        reporter: Hears about progress.
        store: Where checkpoints are kept, if anywhere.
        identity: Of the run, written into checkpoints.
    """

    backbone: Backbone
    config: TrainingConfig
    features: FeatureCache
    plan: Plan
    reporter: Reporter
    store: CheckpointStore | None
    identity: str

    def measure(
        self,
        lessons: Sequence[Lesson],
        *,
        shift: Float32[Tensor, "layers 2 hidden"] | None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> int:
        """How many lessons are answered right."""

        def after_batch(done: int, total: int) -> None:
            if on_batch is not None:
                on_batch(done, total)
            self.reporter.pause()

        right = greedy_right(
            self.backbone,
            lessons,
            features=self.features,
            token_budget=self.config.token_budget,
            max_rows=MAX_ROWS,
            instruction=self.config.instruction,
            shift=shift,
            on_batch=after_batch,
        )
        return sum(right)

    def save(self, student: Student, teacher: TeacherCache, course: Course) -> None:
        """Keeps the state, if there is a place for it."""
        if self.store is None:
            return
        tensors = {**student.state(), **_teacher_tensors(teacher)}
        tensors["losses"] = torch.tensor(course.losses, dtype=torch.float64)
        tensors |= {f"best.{name}": tensor for name, tensor in course.best.items()}
        notes = {
            "seconds": self.reporter.seconds,
            "best_right": course.best_right,
            "held_out_accuracy": self.reporter.held_out_accuracy,
        }
        checkpoint = Checkpoint(
            identity=self.identity, step=course.step, tensors=tensors, notes=notes
        )
        self.store.save(encode_checkpoint(checkpoint))


def _teacher_tensors(teacher: TeacherCache) -> dict[str, Tensor]:
    tensors = {
        "teacher.log_probs": teacher.logits.log_probs,
        "teacher.starts": torch.tensor(teacher.starts),
        "teacher.is_right": torch.tensor(teacher.is_right),
    }
    if teacher.logits.indices is not None:
        tensors["teacher.indices"] = teacher.logits.indices
    return tensors


def restored_teacher(checkpoint: Checkpoint) -> TeacherCache:
    """The teacher's predictions that a checkpoint carries."""
    tensors = checkpoint.tensors
    return TeacherCache(
        logits=TeacherLogits(
            log_probs=tensors["teacher.log_probs"], indices=tensors.get("teacher.indices")
        ),
        starts=tuple(tensors["teacher.starts"].tolist()),
        is_right=tuple(tensors["teacher.is_right"].tolist()),
    )


def learn(
    run: Run, teacher: TeacherCache, found: Checkpoint | None
) -> tuple[InContextVectors, Course]:
    """Takes the optimiser steps, from the start or from where a checkpoint was made.

    Args:
        run: What is worked with.
        teacher: Its predictions for every lesson of the plan.
        found: The checkpoint to go on from.

    Returns:
        The vectors to keep, on the CPU, and how it went.

    Raises:
        JobCancelledError: Someone asked to stop; a checkpoint was made before.
        SteeringError: The vectors could not be applied in full.
    """
    config, plan = run.config, run.plan
    num_steps = config.epochs * plan.steps_per_epoch
    generator = torch.Generator().manual_seed(config.seed)
    student = Student(
        run.backbone,
        config,
        initial=InContextVectors.initial(
            run.backbone.num_layers, run.backbone.hidden_size, generator=generator
        ),
        features=run.features,
        num_steps=num_steps,
    )
    course = Course()
    if found is not None:
        course = _restored_course(found)
        student.restore(found)
    teacher = teacher.on(run.backbone.device)
    run.reporter.begin(
        "student", num_steps, done_before=course.step, items_per_step=config.batch_size
    )
    try:
        while course.step < num_steps:
            _step(run, student, teacher=teacher, course=course)
            run.reporter.stop_if_asked(lambda: run.save(student, teacher, course))
            if course.step % config.checkpoint_every == 0 or course.step == num_steps:
                run.save(student, teacher, course)
        final = student.vectors
    finally:
        student.close()
    if config.keep == "best" and course.best:
        final = InContextVectors(**course.best)
    return final, course


def _restored_course(found: Checkpoint) -> Course:
    prefix = "best."
    return Course(
        step=found.step,
        losses=found.tensors["losses"].tolist(),
        best_right=int(found.notes["best_right"]),
        best={
            name.removeprefix(prefix): tensor
            for name, tensor in found.tensors.items()
            if name.startswith(prefix)
        },
    )


def _step(run: Run, student: Student, *, teacher: TeacherCache, course: Course) -> None:
    config, plan = run.config, run.plan
    epoch, place = divmod(course.step, plan.steps_per_epoch)
    lengths = [len(lesson.query.question) for lesson in plan.lessons[: plan.num_queries]]
    batches = epoch_batches(lengths, batch_size=config.batch_size, epoch=epoch, seed=config.seed)
    numbers = plan.lesson_numbers(batches[place], epoch=epoch)
    rate = student.learning_rate(course.step)
    lessons = [plan.lessons[number] for number in numbers]
    losses = student.step(
        course.step, lessons, teacher=teacher, draws=numbers, on_pass=run.reporter.pause
    )
    course.losses.append([losses[name] for name in LOSS_NAMES])
    course.step += 1
    num_steps = config.epochs * plan.steps_per_epoch
    ends_epoch = place + 1 == plan.steps_per_epoch
    if ends_epoch and ((epoch + 1) % config.evaluate_every == 0 or course.step == num_steps):
        _measure(run, student.vectors, course)
    if course.step % config.report_every == 0 or course.step == num_steps:
        run.reporter.report(course.step, losses=losses, learning_rate=rate)


def _measure(run: Run, vectors: InContextVectors, course: Course) -> None:
    """Measures on held-out items and remembers the best vectors; a tie goes to the later ones."""
    queries = [Lesson(query=lesson.query, context=()) for lesson in run.plan.measured]
    if not queries:
        return
    right = run.measure(queries, shift=vectors.shift())
    run.reporter.held_out_accuracy = right / len(queries)
    if right >= course.best_right:
        course.best_right, course.best = right, vectors.copied()
