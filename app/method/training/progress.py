"""What a run tells while it goes on, and whether it was asked to stop."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from app.core.errors import JobCancelledError
from app.method.steps import OffDevice
from app.method.training.checkpoints import Checkpoint

Result = TypeVar("Result")

Phase: TypeAlias = Literal["features", "teacher", "search", "student", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """One report of a training run.

    Attributes:
        step: Units of the phase that are done: pictures, episodes, optimiser steps or items.
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


Event: TypeAlias = TrainingProgress | Checkpoint | OffDevice | None
Steps: TypeAlias = Generator[Event, Any, Result]


class Reporter:
    """Measures the speed of each phase, and ends a run that was asked to stop.

    `should_stop` is asked where nothing that is worth keeping would be lost.
    """

    def __init__(self, *, should_stop: Callable[[], bool] | None = None) -> None:
        self._should_stop = should_stop
        self._phase: Phase = "features"
        self._num_steps = 0
        self._done_before = self._done = 0
        self._items_per_step = 1
        self._phase_started = self._started = time.monotonic()
        self.earlier_seconds = 0.0
        self.held_out_accuracy: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time of this attempt and of those it goes on from."""
        return self.earlier_seconds + time.monotonic() - self._started

    @property
    def is_stop_wanted(self) -> bool:
        """Whether someone asked the run to stop."""
        return self._should_stop is not None and self._should_stop()

    def begin(
        self, phase: Phase, num_steps: int, *, done_before: int = 0, items_per_step: int = 1
    ) -> None:
        """Starts the clock of a phase."""
        self._phase, self._num_steps = phase, num_steps
        self._done = self._done_before = done_before
        self._items_per_step = items_per_step
        self._phase_started = time.monotonic()

    def progress(
        self, done: int, *, losses: dict[str, float] | None = None, learning_rate: float = 0.0
    ) -> TrainingProgress:
        """The report that so many units of the phase are done."""
        self._done = done
        seconds = max(1e-9, time.monotonic() - self._phase_started)
        fresh = done - self._done_before
        return TrainingProgress(
            phase=self._phase,
            step=done,
            num_steps=self._num_steps,
            losses=dict(losses or {}),
            learning_rate=learning_rate,
            items_per_second=fresh * self._items_per_step / seconds,
            eta_seconds=(self._num_steps - done) * seconds / fresh if fresh > 0 else None,
            held_out_accuracy=self.held_out_accuracy,
        )

    def advance(self, count: int) -> Generator[TrainingProgress, Any, None]:
        """Yields the report that so many further units are done.

        Raises:
            JobCancelledError: Someone asked to stop.
        """
        yield self.progress(self._done + count)
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Returns when the run goes on.

        Raises:
            JobCancelledError: Someone asked to stop.
        """
        if self.is_stop_wanted:
            raise JobCancelledError("The training was stopped on request")
