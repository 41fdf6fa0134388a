"""Training in-context vectors for a task, from examples to vectors with a key and a report.

Knows the order of the phases, checkpoints and cancellation; the arithmetic of a step is the
student's, and where examples come from is the caller's affair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float32

from app.core.errors import InvalidDatasetError, OutOfDeviceMemoryError
from app.method.backbone.embedding import TaskKey, build_task_key, embed
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.evaluation.metrics import Interval, wilson_interval
from app.method.steering.vectors import InContextVectors
from app.method.training.checkpoints import CheckpointStore, decode_checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.loop import MAX_ROWS, Run, learn, restored_teacher
from app.method.training.plan import make_plan, provenance, run_identity
from app.method.training.progress import Reporter, TrainingProgress
from app.method.training.student import LOSS_NAMES
from app.method.training.teacher import Lesson, TeacherCache, compute_teacher

_EMBEDDED_TOGETHER: Final = 256

__all__ = [
    "HeldOutReport",
    "TrainingConfig",
    "TrainingProgress",
    "TrainingResult",
    "train",
]


@dataclass(frozen=True, kw_only=True)
class HeldOutReport:
    """Accuracies on pictures that took no part in training, by greedy decoding and exact answer.

    With `keep="best"` these items also chose among the measurements of the run, so `steered` is
    slightly flattered; a figure to publish needs items that chose nothing.

    Attributes:
        items: How many were asked.
        zero_shot: Without demonstrations and without vectors.
        icl: With as many random demonstrations as the teacher had.
        steered: With the vectors and without demonstrations.
    """

    items: int
    zero_shot: Interval
    icl: Interval
    steered: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """What a run made.

    Attributes:
        vectors: The trained tensors, on the CPU.
        provenance: How they came about, in JSON values: settings, backbone, ids by role and every
            draw of demonstrations.
        losses: One entry an optimiser step, by name.
        held_out: Accuracies on held-out pictures; None without such pictures.
        key: Where the task lies.
        seconds: Wall time, with what earlier attempts had spent by their last checkpoint.
        teacher_accuracy: Share of lessons that the teacher answers right.
    """

    vectors: InContextVectors
    provenance: dict[str, Any]
    losses: list[dict[str, float]]
    held_out: HeldOutReport | None
    key: TaskKey
    seconds: float
    teacher_accuracy: float


def train(
    backbone: Backbone,
    examples: Sequence[Example],
    config: TrainingConfig,
    *,
    on_step: Callable[[TrainingProgress], None] | None = None,
    on_pass: Callable[[], None] | None = None,
    checkpoint: CheckpointStore | None = None,
    should_stop: Callable[[], bool] | None = None,
    features: FeatureCache | None = None,
) -> TrainingResult:
    """Trains vectors that make the backbone answer as if it had seen demonstrations.

    Args:
        backbone: Stays frozen.
        examples: The task. Some are asked, some demonstrate and some only measure, never with a
            picture in common.
        config: Settings; equal settings, examples and backbone give equal vectors on the CPU.
        on_step: Hears about progress every few steps.
        on_pass: Called between any two passes through the backbone, which others may use then: it
            is unsteered. How long a pass takes is bounded by the settings' `token_budget`.
        checkpoint: Where the state is kept; a run that finds one goes on from it and ends with the
            vectors it would have had without the interruption, bit for bit on the CPU.
        should_stop: Asked often; when it says yes the state is saved and the run ends.
        features: Vision features computed before, to be reused.

    Raises:
        InvalidDatasetError: There are too few examples or pictures.
        InvalidInputError: The checkpoint found belongs to another run.
        CorruptDataError: The checkpoint found cannot be read.
        JobCancelledError: `should_stop` said yes.
        SteeringError: The vectors could not be applied in full.
        OutOfDeviceMemoryError: The accelerator is too small for these settings.

    Source: M2IV, arXiv 2504.04633; teacher and vision caches, balance and checkpoints are ours.
    """
    if not examples:
        raise InvalidDatasetError("Nothing to train on: wanted examples, found none")
    reporter = Reporter(on_step=on_step, should_stop=should_stop, on_pass=on_pass)
    identity = run_identity(backbone.description, examples, config)
    data = None if checkpoint is None else checkpoint.load()
    found = None if data is None else decode_checkpoint(data, identity=identity)
    if found is not None:
        reporter.earlier_seconds = float(found.notes["seconds"])
        reporter.held_out_accuracy = found.notes["held_out_accuracy"]
    cache = features or FeatureCache(backbone)
    try:
        rows = _embed_all(backbone, examples, cache=cache, reporter=reporter)
        run = Run(
            backbone=backbone,
            config=config,
            features=cache,
            plan=make_plan(examples, rows, config),
            reporter=reporter,
            store=checkpoint,
            identity=identity,
        )
        teacher = _teach(run) if found is None else restored_teacher(found)
        vectors, course = learn(run, teacher, found)
        report = _report(run, vectors)
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemoryError(
            "The accelerator has no room for this training: wanted a smaller token_budget or "
            "gradient_checkpointing"
        ) from error
    split = run.plan.split
    return TrainingResult(
        vectors=vectors,
        provenance=provenance(backbone.description, examples, config=config, plan=run.plan),
        losses=[dict(zip(LOSS_NAMES, step, strict=True)) for step in course.losses],
        held_out=report,
        key=build_task_key(
            rows[list(split.queries)],
            seed=config.seed,
            calibration=rows[list(split.held_out or split.support)],
        ),
        seconds=reporter.seconds,
        teacher_accuracy=teacher.accuracy,
    )


def _embed_all(
    backbone: Backbone, examples: Sequence[Example], *, cache: FeatureCache, reporter: Reporter
) -> Float32[np.ndarray, "items width"]:
    images = [example.image for example in examples]
    num_pictures = len({example.image_id for example in examples})
    reporter.begin("features", num_pictures)

    def on_batch(done: int, _total: int) -> None:
        reporter.report(done)
        reporter.pause()
        reporter.stop_if_asked()

    cache.prepare([image for image in images if image is not None], on_batch=on_batch)
    rows = []
    for start in range(0, len(examples), _EMBEDDED_TOGETHER):
        which = slice(start, start + _EMBEDDED_TOGETHER)
        questions = [example.question for example in examples[which]]
        rows.append(embed(backbone, images[which], questions, features=cache))
        reporter.pause()
    reporter.report(num_pictures)
    return np.concatenate(rows)


def _teach(run: Run) -> TeacherCache:
    run.reporter.begin("teacher", len(run.plan.lessons))

    def on_batch(done: int, _total: int) -> None:
        run.reporter.report(done)
        run.reporter.pause()
        run.reporter.stop_if_asked()

    return compute_teacher(
        run.backbone,
        run.plan.lessons,
        features=run.features,
        temperature=run.config.temperature,
        top_k=run.config.teacher_top_k,
        token_budget=run.config.token_budget,
        max_rows=MAX_ROWS,
        instruction=run.config.instruction,
        on_batch=on_batch,
    )


def _report(run: Run, vectors: InContextVectors) -> HeldOutReport | None:
    lessons = run.plan.measured
    if not lessons:
        return None
    queries = [Lesson(query=lesson.query, context=()) for lesson in lessons]
    run.reporter.begin("evaluate", 3 * len(lessons))
    found: list[Interval] = []

    def on_batch(done: int, total: int) -> None:
        run.reporter.report(len(found) * total + done)
        run.reporter.stop_if_asked()

    for asked, shift in ((queries, None), (lessons, None), (queries, vectors.shift())):
        right = run.measure(asked, shift=shift, on_batch=on_batch)
        found.append(wilson_interval(right, len(lessons)))
    run.reporter.held_out_accuracy = found[2].mean
    return HeldOutReport(items=len(lessons), zero_shot=found[0], icl=found[1], steered=found[2])
