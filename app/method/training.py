"""Training in-context vectors for a task, from examples to vectors with a key and a report.

Knows the order of the phases, progress, checkpoints and cancellation; the arithmetic of a step is
the student's and the data set's origin is the caller's.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import torch
from jaxtyping import Float32
from torch import Tensor

from app.core.errors import InvalidDatasetError, JobCancelledError
from app.method.backbone import Backbone
from app.method.checkpoints import (
    Checkpoint,
    CheckpointStore,
    decode_checkpoint,
    encode_checkpoint,
)
from app.method.configuration import TrainingConfig
from app.method.demonstrations import Split, choose_queries, draw_context, generator_for, hold_out
from app.method.embedding import TaskKey, build_task_key, embed
from app.method.evaluation.metrics import Interval, wilson_interval
from app.method.examples import Example
from app.method.features import FeatureCache
from app.method.student import LOSS_NAMES, Student
from app.method.teacher import Lesson, TeacherCache, TeacherLogits, compute_teacher, greedy_right
from app.method.vectors import TENSOR_NAMES, InContextVectors

Phase: TypeAlias = Literal["features", "teacher", "student", "evaluate"]

_MAX_ROWS: Final = 128
_BUCKET_BATCHES: Final = 8


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a run is.

    Attributes:
        phase: What is being done.
        step: Units of the phase that are done: pictures, lessons, optimiser steps or items.
        num_steps: Units of the phase.
        losses: Of the last optimiser step, by name.
        learning_rate: Of the vectors.
        items_per_second: In this phase.
        eta_seconds: Until the end of this phase; None before anything can be said.
        held_out_accuracy: Of the last measurement, in [0, 1].
    """

    phase: Phase
    step: int
    num_steps: int
    losses: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    items_per_second: float = 0.0
    eta_seconds: float | None = None
    held_out_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class HeldOutReport:
    """Accuracies on pictures that took no part in training, by greedy decoding and exact answer.

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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What a run will do, fixed by items, settings and backbone."""

    split: Split
    lessons: tuple[Lesson, ...]
    measured: tuple[Lesson, ...]
    rows: Float32[Any, "items width"]
    num_steps: int
    draws: int


def _plan(
    examples: Sequence[Example], rows: Float32[Any, "items width"], config: TrainingConfig
) -> _Plan:
    training, held_out = hold_out(
        examples,
        fraction=config.held_out_fraction,
        most=config.max_held_out,
        seed=config.seed,
    )
    queries, support = choose_queries(
        rows[list(training)],
        [examples[index].image_id for index in training],
        num_queries=config.num_queries,
        seed=config.seed,
    )
    split = Split(
        queries=tuple(training[index] for index in queries),
        support=tuple(training[index] for index in support),
        held_out=held_out,
    )

    def lesson(item: int, draw: int) -> Lesson:
        context = draw_context(
            split.support, shots=config.shots, query=item, draw=draw, seed=config.seed
        )
        return Lesson(query=examples[item], context=tuple(examples[index] for index in context))

    draws = min(config.contexts_per_query, config.epochs)
    steps_per_epoch = -(-len(split.queries) // config.batch_size)
    return _Plan(
        split=split,
        lessons=tuple(lesson(item, draw) for draw in range(draws) for item in split.queries),
        measured=tuple(lesson(item, 0) for item in split.held_out),
        rows=rows,
        num_steps=config.epochs * steps_per_epoch,
        draws=draws,
    )


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, epoch: int, seed: int
) -> list[list[int]]:
    """Query numbers by batch for one epoch: shuffled, yet similar lengths together.

    Args:
        lengths: Characters of each query.
        batch_size: Queries a batch; the last one may be smaller.
        epoch: From 0.
        seed: Of the run.
    """
    generator = generator_for(seed, "epoch", epoch)
    order = [int(index) for index in generator.permutation(len(lengths))]
    bucket = _BUCKET_BATCHES * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), bucket):
        chunk = sorted(order[start : start + bucket], key=lambda index: (lengths[index], index))
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


class _Run:
    """One run's moving parts; `train` drives it through its phases."""

    def __init__(
        self,
        backbone: Backbone,
        examples: Sequence[Example],
        config: TrainingConfig,
        *,
        on_step: Callable[[TrainingProgress], None] | None,
        checkpoint: CheckpointStore | None,
        should_stop: Callable[[], bool] | None,
        features: FeatureCache | None,
    ) -> None:
        self.backbone = backbone
        self.examples = examples
        self.config = config
        self.features = features or FeatureCache(backbone)
        self.identity = self._identity()
        self.started = time.monotonic()
        self.earlier_seconds = 0.0
        self._on_step = on_step
        self._store = checkpoint
        self._should_stop = should_stop
        self._phase_started = self.started
        self.held_out_accuracy: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time of this attempt and of the ones it continues."""
        return self.earlier_seconds + time.monotonic() - self.started

    def _identity(self) -> str:
        record = {
            "backbone": self.backbone.description.fingerprint,
            "config": self.config.to_dict(),
            "items": [(example.id, example.image_id) for example in self.examples],
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def begin(self) -> None:
        """Starts the clock of a phase."""
        self._phase_started = time.monotonic()

    def report(
        self,
        phase: Phase,
        done: int,
        total: int,
        *,
        items: int | None = None,
        done_before: int = 0,
        losses: dict[str, float] | None = None,
        learning_rate: float = 0.0,
    ) -> None:
        """Tells progress to whoever listens."""
        if self._on_step is None:
            return
        seconds = max(1e-9, time.monotonic() - self._phase_started)
        fresh = done - done_before
        progress = TrainingProgress(
            phase=phase,
            step=done,
            num_steps=total,
            losses=losses or {},
            learning_rate=learning_rate,
            items_per_second=(fresh if items is None else items) / seconds,
            eta_seconds=(total - done) * seconds / fresh if fresh else None,
            held_out_accuracy=self.held_out_accuracy,
        )
        self._on_step(progress)

    def stop_if_asked(self, save: Callable[[], None] | None = None) -> None:
        """Ends the run when someone asked for it.

        Raises:
            JobCancelledError: Someone did; the state was saved before.
        """
        if self._should_stop is None or not self._should_stop():
            return
        if save is not None:
            save()
        raise JobCancelledError("The training was stopped on request")

    def load(self) -> Checkpoint | None:
        """The checkpoint to go on from."""
        data = None if self._store is None else self._store.load()
        if data is None:
            return None
        found = decode_checkpoint(data, identity=self.identity)
        self.earlier_seconds = float(found.notes["seconds"])
        return found

    def save(self, checkpoint: Checkpoint) -> None:
        """Keeps the state, if there is a place for it."""
        if self._store is not None:
            self._store.save(encode_checkpoint(checkpoint))
