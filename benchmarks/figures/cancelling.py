"""P11: how many steps of the engine lie between a cancel and the first use of its row by another.

Whether a row is free is judged by who waits for it: the seam has no other way to tell, and nothing
else matters to a user.
"""

import random
from time import perf_counter
from typing import Any, Final

from app.core.errors import VLibraryError
from app.method.backbone.loading import Backbone
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence as Row
from benchmarks.harness import bar, percentile
from benchmarks.setting.backbones import without_end
from benchmarks.setting.requests import (
    Asked,
    from_pixels,
    image_prompts,
    random_shifts,
    row_of,
    running_engine,
)

MOST_STEPS: Final = 100
MOST_TOKENS: Final = 1024


def cancel_figures(backbone: Backbone, *, num_rows: int, num_cancels: int) -> dict[str, Any]:
    """P11 in steps, and the same in milliseconds.

    Args:
        backbone: Who answers.
        num_rows: Rows of the engine, all of them taken at every cancel.
        num_cancels: How many running requests are cancelled.

    Raises:
        VLibraryError: A request failed, or a row was never used again.
    """
    endless = without_end(backbone)
    asked = from_pixels(endless, image_prompts(endless, num_rows), random_shifts(endless, num_rows))
    steps: list[int] = []
    seconds: list[float] = []
    with running_engine(endless, max_rows=num_rows) as engine:
        crowd = _Crowd(engine, asked)
        for _ in bar(num_cancels, "P11"):
            began = perf_counter()
            steps.append(crowd.replace_one())
            seconds.append(perf_counter() - began)
    return {
        "P11": percentile(steps, 0.99),
        "P11_ms_p99": round(percentile(seconds, 0.99) * 1000, 3),
        "P11_steps_most": max(steps),
    }


class _Crowd:
    """A full engine with one request more than it has rows."""

    def __init__(self, engine: Engine, asked: list[Asked]) -> None:
        self._engine = engine
        self._asked = asked
        self._chance = random.Random(0)  # noqa: S311 - which row is cancelled is no secret
        self._running = [self._added() for _ in asked]
        for row in self._running:
            self._step_until_begun(row)
        self._waiting = self._added()

    def replace_one(self) -> int:
        """Cancel a running request; the steps until the waiting one has its first token."""
        place = self._chance.randrange(len(self._running))
        self._engine.abort(self._running[place].id)
        self._running[place] = self._waiting
        num_steps = self._step_until_begun(self._waiting)
        self._waiting = self._added()
        return num_steps

    def _added(self) -> Row:
        row = row_of(self._chance.choice(self._asked), num_tokens=MOST_TOKENS)
        self._engine.add(row)
        return row

    def _step_until_begun(self, row: Row) -> int:
        for num_steps in range(MOST_STEPS):
            if row.token_ids:
                return num_steps
            if finished := self._engine.step():
                self._replace(finished)
        raise VLibraryError(f"P11: wanted a row within {MOST_STEPS} steps, found none")

    def _replace(self, finished: list[Row]) -> None:
        """Somebody nobody cancelled for so long that the answer ended is followed by another."""
        for ended in finished:
            if ended.error is not None:
                raise ended.error
            if ended in self._running:
                self._running[self._running.index(ended)] = self._added()
