"""How far a run is, for whoever listens, and whether it was asked to stop.

Knows clocks and counts; knows nothing of what is being done.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.core.errors import JobCancelledError

Phase: TypeAlias = Literal["features", "teacher", "search", "student", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """One report of a training run.

    Attributes:
        phase: What is being done.
        step: Units of the phase that are done: pictures, lessons, optimiser steps or items.
        num_steps: Units of the phase.
        losses: Of the last optimiser step, by name.
        learning_rate: Of the vectors.
        items_per_second: In this phase of this attempt.
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


class Reporter:
    """Measures the speed of each phase and passes reports on."""

    def __init__(
        self,
        *,
        on_step: Callable[[TrainingProgress], None] | None,
        should_stop: Callable[[], bool] | None,
        on_pass: Callable[[], None] | None,
    ) -> None:
        self._on_step = on_step
        self._on_pass = on_pass
        self._should_stop = should_stop
        self._phase: Phase = "features"
        self._num_steps = 0
        self._done_before = 0
        self._items_per_step = 1
        self._phase_started = self._started = time.monotonic()
        self.earlier_seconds = 0.0
        self.held_out_accuracy: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time of this attempt and of those it goes on from."""
        return self.earlier_seconds + time.monotonic() - self._started

    def begin(
        self, phase: Phase, num_steps: int, *, done_before: int = 0, items_per_step: int = 1
    ) -> None:
        """Starts the clock of a phase.

        Args:
            phase: What begins.
            num_steps: Its units.
            done_before: Units that an earlier attempt has done.
            items_per_step: Items in a unit.
        """
        self._phase, self._num_steps = phase, num_steps
        self._done_before, self._items_per_step = done_before, items_per_step
        self._phase_started = time.monotonic()

    def report(
        self, done: int, *, losses: dict[str, float] | None = None, learning_rate: float = 0.0
    ) -> None:
        """Passes on that so many units of the phase are done."""
        if self._on_step is None:
            return
        seconds = max(1e-9, time.monotonic() - self._phase_started)
        fresh = done - self._done_before
        progress = TrainingProgress(
            phase=self._phase,
            step=done,
            num_steps=self._num_steps,
            losses=dict(losses or {}),
            learning_rate=learning_rate,
            items_per_second=fresh * self._items_per_step / seconds,
            eta_seconds=(self._num_steps - done) * seconds / fresh if fresh > 0 else None,
            held_out_accuracy=self.held_out_accuracy,
        )
        self._on_step(progress)

    def pause(self) -> None:
        """Lets others have the backbone, between two passes."""
        if self._on_pass is not None:
            self._on_pass()

    def stop_if_asked(self, save: Callable[[], None] | None = None) -> None:
        """Ends the run when someone asked for it.

        Args:
            save: Keeps the state first.

        Raises:
            JobCancelledError: Someone asked.
        """
        if self._should_stop is None or not self._should_stop():
            return
        if save is not None:
            save()
        raise JobCancelledError("The training was stopped on request")
