"""`python -m benchmarks.cold_vector`: what a vector costs that is not on the device yet."""

from typing import Annotated, Any, Final

import typer

from benchmarks.figures.coldness import cold_figures
from benchmarks.harness import (
    POCKET,
    RANDOM,
    AsJson,
    Backbones,
    Device,
    Dtype,
    Rounds,
    Rows,
    report,
    run,
)
from benchmarks.setting.backbones import load

TIMED: Final = (
    "time to first token as the answer tells it (queue_ms + prefill_ms, so with decoding the image "
    "and building the prompt, cold and warm alike); the file comes from memory; all other rows "
    "are decoding meanwhile, a step being the median gap between the ends of two steps"
)


def cold_vector(
    *,
    rows: Rows = 16,
    requests: Annotated[int, typer.Option(min=1, help="Requests a round.")] = 40,
    rounds: Rounds = 5,
    backbone: Backbones = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """P9: the wait for a vector that has to be loaded, in decode steps, and what others feel of it.

    P9 is the median time to first token with a vector that is not on the device minus the median
    with one that is, over one decode step of the rows that run beside. P9_others is the 95th
    percentile of the gaps between those rows' tokens while such vectors are loaded, over the same
    while the same requests find theirs loaded.
    """

    def measure(name: str) -> dict[str, Any]:
        loaded = load(name, device=device, dtype=dtype)
        return cold_figures(loaded, num_rows=rows, num_requests=requests, num_rounds=rounds)

    report(
        "cold_vector",
        measure,
        backbones=backbone or [POCKET, RANDOM],
        as_json=as_json,
        rows=rows,
        requests=requests,
        rounds=rounds,
        timed=TIMED,
    )


if __name__ == "__main__":
    run(cold_vector)
