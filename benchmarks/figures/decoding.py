"""P2: decode steps with every row steered beside decode steps without any hooks.

The effect is smaller than the machine's noise from one moment to the next, so single steps of the
two sides alternate, each side on a copy of the backbone of its own. Which copy is steered changes
from block to block, because where weights lie in memory matters as much. The figure is the median
of the ratios of neighbouring steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from app.core.errors import VLibraryError
from app.method.backbone.loading import Backbone
from app.worker.engine.engine import Engine
from benchmarks.harness import (
    bar,
    interleave,
    median_ratio,
    medians,
    paired_ratios,
    spread,
    without_collection,
)
from benchmarks.setting.backbones import without_end
from benchmarks.setting.requests import (
    Asked,
    Shift,
    from_pixels,
    image_prompts,
    random_shifts,
    row_of,
    running_engine,
)


def step_figures(
    backbone: Backbone, *, num_rows: int, num_blocks: int, num_steps: int
) -> dict[str, Any]:
    """P2 with its quartiles.

    Args:
        backbone: Who answers.
        num_rows: Rows decoded together.
        num_blocks: Blocks, each with rows and engines of its own.
        num_steps: Pairs of decode steps a block.
    """
    endless = without_end(backbone)
    copies = [endless, replace(endless, model=deepcopy(endless.model))]
    shifts = random_shifts(endless, num_rows)
    times: dict[str, list[float]] = {"steered": [], "unhooked": []}
    for block in bar(num_blocks, "P2"):
        # What is made first lies elsewhere in memory, so the sides take turns in that, too.
        order = ("steered", "unhooked")[:: 1 if block % 2 == 0 else -1]
        sides = dict(zip(order, copies, strict=True))
        for side, seconds in _block(sides, shifts, num_steps=num_steps).items():
            times[side] += seconds
    low, high = spread(paired_ratios(times["steered"], times["unhooked"]))
    return {
        "P2": round(median_ratio(times["steered"], times["unhooked"]), 4),
        "P2_quartiles": [round(low, 4), round(high, 4)],
        "P2_step_median_ms": medians(times),
    }


def _block(
    sides: Mapping[str, Backbone], shifts: Sequence[Shift], *, num_steps: int
) -> dict[str, list[float]]:
    """Seconds of decode steps of both sides in turn."""
    engines = {}
    with ExitStack() as stack:
        for side, backbone in sides.items():
            used = shifts if side == "steered" else [None] * len(shifts)
            asked = from_pixels(backbone, image_prompts(backbone, len(shifts)), used)
            engines[side] = stack.enter_context(_decoding(backbone, asked, num_steps=num_steps))
        # From here on this copy has no hooks at all, and none of its rows asks for any.
        engines["unhooked"].close()
        with without_collection():
            return interleave(
                {side: partial(_seconds_of_step, engine) for side, engine in engines.items()},
                rounds=range(num_steps),
            )


@contextmanager
def _decoding(backbone: Backbone, asked: Sequence[Asked], *, num_steps: int) -> Iterator[Engine]:
    """An engine whose rows have all joined, none of which ends before the last step."""
    rows = [row_of(one, num_tokens=num_steps + 2 * len(asked) + 2) for one in asked]
    with running_engine(backbone, max_rows=len(rows)) as engine:
        for row in rows:
            engine.add(row)
        while not all(row.token_ids for row in rows):
            _step(engine)
        yield engine


def _seconds_of_step(engine: Engine) -> float:
    began = perf_counter()
    _step(engine)
    return perf_counter() - began


def _step(engine: Engine) -> None:
    for finished in engine.step():
        raise finished.error or VLibraryError("P2: a row ended before it was timed")
