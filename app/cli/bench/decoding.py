"""P2: decode steps with every row steered beside decode steps without any hooks.

The effect is of the size of the machine's noise, so blocks are short, alternate in order, and share
weights and prompts; a block's time is the median of its steps, the figure the median of the pairs'
ratios.
"""

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from app.cli.bench.asking import (
    Asked,
    from_pixels,
    image_prompts,
    random_shifts,
    row_of,
    running_engine,
)
from app.cli.bench.backbones import without_end
from app.cli.bench.figures import (
    interleave,
    median_ratio,
    medians,
    paired_ratios,
    spread,
    without_collection,
)
from app.cli.bench.printing import bar
from app.core.errors import VLibraryError
from app.method.backbone import Backbone
from app.worker.engine.engine import Engine


def step_figures(
    backbone: Backbone, *, num_rows: int, num_blocks: int, num_steps: int
) -> dict[str, Any]:
    """P2 with its quartiles.

    Args:
        backbone: Who answers.
        num_rows: Rows decoded together.
        num_blocks: Pairs of blocks.
        num_steps: Decode steps a block.
    """
    endless = without_end(backbone)
    prompts = image_prompts(endless, num_rows)
    steered = from_pixels(endless, prompts, random_shifts(endless, num_rows))
    plain = from_pixels(endless, prompts, [None] * num_rows)

    def with_hooks() -> float:
        with running_engine(endless, max_rows=num_rows) as engine:
            return _median_step(engine, steered, num_steps=num_steps)

    def without_hooks() -> float:
        with running_engine(endless, max_rows=num_rows) as engine:
            # From here on the backbone has no hooks at all, and no row asks for any.
            engine.close()
            return _median_step(engine, plain, num_steps=num_steps)

    arms: dict[str, Callable[[], float]] = {"steered": with_hooks, "unhooked": without_hooks}
    times = interleave(arms, rounds=bar(num_blocks, "P2"))
    low, high = spread(paired_ratios(times["steered"], times["unhooked"]))
    return {
        "P2": round(median_ratio(times["steered"], times["unhooked"]), 4),
        "P2_quartiles": [round(low, 4), round(high, 4)],
        "P2_step_median_ms": medians(times),
    }


def _median_step(engine: Engine, asked: Sequence[Asked], *, num_steps: int) -> float:
    """Seconds of the median step in which all rows, and nothing else, are decoded."""
    # Joining takes some steps, and no row may end before the last one that is timed.
    rows = [row_of(one, num_tokens=num_steps + 2 * len(asked) + 2) for one in asked]
    for row in rows:
        engine.add(row)
    while not all(row.token_ids for row in rows):
        _step(engine)
    seconds = []
    with without_collection():
        for _ in range(num_steps):
            began = perf_counter()
            _step(engine)
            seconds.append(perf_counter() - began)
    for row in rows:
        engine.abort(row.id)
    return statistics.median(seconds)


def _step(engine: Engine) -> None:
    for finished in engine.step():
        raise finished.error or VLibraryError("P2: a row ended before it was timed")
