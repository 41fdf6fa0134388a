"""The optimiser steps of a run, what they work with, and how both survive an interruption."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from app.method.backbone.examples import Episode, Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.method.training.answers import AnswerScore, answer_episodes
from app.method.training.checkpoints import Checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.losses import TeacherLogProbs
from app.method.training.plan import TrainingPlan, epoch_batches
from app.method.training.progress import Phase, Reporter, Steps
from app.method.training.student import LOSS_NAMES, Student
from app.method.training.teacher import TeacherCache

MAX_TRAINING_ROWS: Final = 256
# A coordinate of 1 in a vector is this share of the stream's mean one in its layer.
_UNIT: Final = 0.3
_DEVIATION: Final = 0.01


@dataclass(kw_only=True)
class TrainState:
    """What has come of the optimiser steps so far.

    Attributes:
        losses: Of each step, in the order of `LOSS_NAMES`.
        best_right: Held-out items that the best vectors get right; -1 before the first measurement.
    """

    step: int = 0
    losses: list[list[float]] = field(default_factory=list)
    best_step: int = 0
    best_right: int = -1
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)

    def notes(self) -> dict[str, Any]:
        """What a checkpoint says of it beside its tensors and its step."""
        others = {"step", "losses", "best"}
        return {name: value for name, value in vars(self).items() if name not in others}


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainLoop:
    """What one run works with, from its first step to its report.

    Attributes:
        norms: The usual length of the backbone's stream behind each layer.
        trials: Held-out loss of each short run that was made to choose between recipes.
    """

    config: TrainingConfig
    features: FeatureCache
    examples: Sequence[Example]
    rows: Float32[np.ndarray, "items width"]
    norms: Float[Tensor, " layers"]
    plan: TrainingPlan
    reporter: Reporter
    identity: str
    trials: list[float] = field(default_factory=list)

    @property
    def backbone(self) -> Backbone:
        """Who is trained for."""
        return self.features.backbone

    @property
    def queries(self) -> list[Episode]:
        """The held-out items without demonstrations."""
        return [Episode(query=self.examples[item], context=()) for item in self.plan.measured]

    def measure(
        self,
        episodes: Sequence[Episode],
        *,
        shifts: Float[Tensor, "sets layers 2 hidden"] | None = None,
        reporter: Reporter | None = None,
    ) -> Steps[list[AnswerScore]]:
        """How held-out episodes are answered, by the set of vectors that has not seen each."""
        return answer_episodes(
            self.features,
            episodes,
            token_budget=self.config.token_budget,
            max_rows=MAX_TRAINING_ROWS,
            instruction=self.config.instruction,
            shifts=None if shifts is None else shifts[list(self.plan.measured_sets)],
            reporter=reporter,
        )

    def checkpoint(
        self, student: Student | None, teacher: TeacherCache, state: TrainState
    ) -> Checkpoint:
        """The state, which later steps leave as it is."""
        tensors = {**({} if student is None else student.state()), **_teacher_tensors(teacher)}
        tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64)
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        notes = {
            **state.notes(),
            "seconds": self.reporter.seconds,
            "held_out_accuracy": self.reporter.held_out_accuracy,
            "trials": list(self.trials),
        }
        return Checkpoint(identity=self.identity, step=state.step, tensors=tensors, notes=notes)


def _teacher_tensors(teacher: TeacherCache) -> dict[str, Tensor]:
    tensors = {
        "teacher.log_probs": teacher.predictions.log_probs,
        "teacher.starts": torch.tensor(teacher.starts),
        "teacher.is_right": torch.tensor(teacher.is_right),
    }
    if teacher.predictions.indices is not None:
        tensors["teacher.indices"] = teacher.predictions.indices
    return tensors


def restored_teacher(checkpoint: Checkpoint) -> TeacherCache:
    """The teacher's predictions that a checkpoint carries."""
    tensors = checkpoint.tensors
    return TeacherCache(
        predictions=TeacherLogProbs(
            log_probs=tensors["teacher.log_probs"], indices=tensors.get("teacher.indices")
        ),
        starts=tuple(tensors["teacher.starts"].tolist()),
        is_right=tuple(tensors["teacher.is_right"].tolist()),
    )


def restored_state(found: Checkpoint) -> TrainState:
    """The steps that were done when a checkpoint was made."""
    return TrainState(
        step=found.step,
        losses=found.tensors["losses"].tolist(),
        best=found.part("best."),
        **{name: found.notes[name] for name in TrainState().notes()},
    )


def initial_vectors(
    backbone: Backbone, *, norms: Float[Tensor, " layers"], seed: int
) -> InContextVectors:
    """Where a training starts: nearly zero, in units of each layer's stream; alike on every device.

    Zero vectors with zero weights would have no gradient at all. `norms` are those of
    `residual_norms`.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (backbone.num_layers, backbone.hidden_size)
    weights = _UNIT * norms / backbone.hidden_size**0.5
    return InContextVectors(
        attention_vectors=torch.randn(shape, generator=generator) * _DEVIATION,
        mlp_vectors=torch.randn(shape, generator=generator) * _DEVIATION,
        attention_weights=weights,
        mlp_weights=weights.clone(),
    )


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
        loop.features,
        config,
        initial=initial_vectors(loop.backbone, norms=loop.norms, seed=config.seed),
        num_steps=num_steps,
        episodes=loop.plan.episodes,
        teacher=teacher,
        num_sets=loop.plan.num_sets,
        done=found,
    )
    state = TrainState() if found is None else restored_state(found)
    keeps = phase == "student"
    batch_size = loop.plan.batch_size
    loop.reporter.begin(phase, num_steps, done_before=state.step, items_per_step=batch_size)
    try:
        while state.step < num_steps:
            yield from _step(loop, student, state, config=config, num_steps=num_steps)
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
    state: TrainState,
    *,
    config: TrainingConfig,
    num_steps: int,
) -> Steps[None]:
    plan = loop.plan
    epoch, place = divmod(state.step, plan.steps_per_epoch)
    lengths = [len(episode.query.question) for episode in plan.episodes[: plan.num_queries]]
    batches = epoch_batches(lengths, batch_size=plan.batch_size, epoch=epoch, seed=config.seed)
    rows = [
        (plan.episode_of(query, epoch=epoch), one)
        for query in batches[place]
        for one in plan.sets(query)
    ]
    rate = student.rate
    view = epoch % (1 + config.augmented_views)
    losses = yield from student.step(rows, view=view)
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
    answers = yield from loop.measure(queries, shifts=student.shifts().detach())
    right = sum(answer.is_right for answer in answers)
    loss = sum(answer.loss for answer in answers) / len(answers)
    loop.reporter.held_out_accuracy = right / len(queries)
    if (right, -loss) > (state.best_right, -state.best_loss):
        state.best_step, state.best_right, state.best_loss = state.step, right, loss
        state.best = student.snapshot()
