"""P1: every row with a vector and a strength of its own beside one for all rows."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from app.method.backbone.loading import Backbone
from benchmarks.harness import (
    bar,
    interleave,
    median_ratio,
    medians,
    model_conditions,
    paired_ratios,
    seconds_of,
    spread,
)
from benchmarks.setting.backbones import without_end
from benchmarks.setting.requests import (
    STRENGTHS,
    Asked,
    from_pixels,
    image_prompts,
    random_vectors,
    running_engine,
    through_engine,
)


def distinct_figures(
    backbone: Backbone, *, num_rows: int, num_tokens: int, rounds: int
) -> dict[str, Any]:
    """P1 with its quartiles and conditions.

    Args:
        backbone: Who answers.
        num_rows: Requests that arrive together, each steered.
        num_tokens: Length of the answers.
        rounds: Interleaved rounds.
    """
    endless = without_end(backbone)
    plain = from_pixels(endless, image_prompts(endless, num_rows), [None] * num_rows)
    stored = torch.stack(
        [random_vectors(endless, seed=slot).shift() for slot in range(num_rows)]
    ).to(endless.device)
    uses = {
        "distinct": [(slot, STRENGTHS[slot % len(STRENGTHS)]) for slot in range(num_rows)],
        "same": [(0, 1.0)] * num_rows,
    }
    with running_engine(endless, max_rows=num_rows) as engine:

        def answer(used: Sequence[tuple[int, float]]) -> None:
            # As the worker does it: a slot times a strength, made when the request comes.
            asked = [
                Asked(inputs=one.inputs, shift=stored[slot] * strength)
                for one, (slot, strength) in zip(plain, used, strict=True)
            ]
            through_engine(engine, asked, num_tokens=num_tokens)

        def measure(used: Sequence[tuple[int, float]]) -> float:
            return seconds_of(lambda: answer(used))

        times = interleave(
            {name: partial(measure, used) for name, used in uses.items()}, rounds=bar(rounds, "P1")
        )
    low, high = spread(paired_ratios(times["same"], times["distinct"]))
    return {
        "P1": round(median_ratio(times["same"], times["distinct"]), 4),
        "P1_quartiles": [round(low, 4), round(high, 4)],
        "P1_median_ms": medians(times),
        **model_conditions(backbone),
    }
