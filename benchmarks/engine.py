"""`python -m benchmarks.engine`: in-flight batching beside one by one, and how fast a cancel is."""

from typing import Annotated, Any, Final

import typer

from benchmarks.figures.batching import batching_figures
from benchmarks.figures.cancelling import cancel_figures
from benchmarks.harness import (
    POCKET,
    RANDOM,
    AsJson,
    Backbones,
    Device,
    Dtype,
    Rounds,
    Rows,
    Tokens,
    report,
    run,
)
from benchmarks.setting.backbones import load

TIMED: Final = (
    "from prepared inputs (images decoded, prompts encoded) to the answers' texts, on both sides: "
    "vision tower, prefill and decoding; in `features` the vision tower's output is an input too"
)


def engine(
    *,
    rows: Rows = 16,
    tokens: Tokens = 32,
    rounds: Rounds = 5,
    cancels: Annotated[int, typer.Option(min=1, help="Cancels to time.")] = 100,
    backbone: Backbones = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """P3, P3_short and P11: the engine over sequential generate(), and steps until a row is free.

    P3 is the time of sequential stock `generate()` over the engine's for the same image requests,
    each with a vector of its own; P3_short the same for answers of 2 tokens. Both sides must write
    the same tokens. P11 is the 99th percentile of the steps from a cancel to the first token of
    the request that waited for the row.
    """

    def measure(name: str) -> dict[str, Any]:
        loaded = load(name, device=device, dtype=dtype)
        batching = batching_figures(loaded, num_rows=rows, num_tokens=tokens, rounds=rounds)
        return {**batching, **cancel_figures(loaded, num_rows=rows, num_cancels=cancels)}

    report(
        "engine",
        measure,
        backbones=backbone or [POCKET, RANDOM],
        as_json=as_json,
        rows=rows,
        tokens=tokens,
        rounds=rounds,
        cancels=cancels,
        timed=TIMED,
    )


if __name__ == "__main__":
    run(engine)
