"""What a training works with, what has come of it, and how both survive an interruption."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from app.method.backbone.examples import Example, Lesson
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.training.answers import Answered, answer_lessons
from app.method.training.checkpoints import Checkpoint
from app.method.training.configuration import TrainingConfig
from app.method.training.losses import TeacherLogits
from app.method.training.plan import Plan
from app.method.training.progress import Reporter, Steps
from app.method.training.student import Student
from app.method.training.teacher import TeacherCache

MAX_ROWS: Final = 256


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

    backbone: Backbone
    config: TrainingConfig
    features: FeatureCache
    examples: Sequence[Example]
    rows: Float32[np.ndarray, "items width"]
    norms: Float[Tensor, " layers"]
    plan: Plan
    reporter: Reporter
    identity: str
    trials: list[float] = field(default_factory=list)

    @property
    def queries(self) -> list[Lesson]:
        """The held-out items without demonstrations."""
        return [Lesson(query=self.examples[item], context=()) for item in self.plan.measured]

    def measure(
        self,
        lessons: Sequence[Lesson],
        *,
        shifts: Float[Tensor, "sets layers 2 hidden"] | None = None,
        reporter: Reporter | None = None,
    ) -> Steps[list[Answered]]:
        """How held-out lessons are answered, by the set of vectors that has not seen each."""
        return answer_lessons(
            self.backbone,
            lessons,
            features=self.features,
            token_budget=self.config.token_budget,
            max_rows=MAX_ROWS,
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


def restored_state(found: Checkpoint) -> TrainState:
    """The steps that were done when a checkpoint was made."""
    prefix = "best."
    names = TrainState().notes()
    return TrainState(
        step=found.step,
        losses=found.tensors["losses"].tolist(),
        best={
            name.removeprefix(prefix): tensor
            for name, tensor in found.tensors.items()
            if name.startswith(prefix)
        },
        **{name: found.notes[name] for name in names},
    )
