"""`python -m benchmarks.steering`: what it costs to steer, and to steer every row differently."""

from typing import Annotated, Any, Final

import typer

from benchmarks.figures.decoding import step_figures
from benchmarks.figures.distinct import distinct_figures
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
    "P1 from prepared inputs (images decoded, prompts encoded) and stored vectors to the answers' "
    "texts; P2 steps of the engine that only decode, tokens picked, prefill outside"
)


def steering(
    *,
    rows: Rows = 16,
    tokens: Tokens = 32,
    rounds: Rounds = 40,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks of P2, with new rows each.")] = 20,
    steps: Annotated[
        int, typer.Option(min=1, max=512, help="Pairs of decode steps a block of P2.")
    ] = 60,
    backbone: Backbones = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """P1 and P2: a vector for each row over one for all, and steered over unhooked decode steps.

    P1 is the throughput with a vector and a strength of its own for each row, over the throughput
    with the same for all rows. P2 is the time of a decode step with every row steered over the
    time with the hooks taken off the backbone: the median over pairs of neighbouring steps, with
    the quartiles, because the effect is small.
    """

    def measure(name: str) -> dict[str, Any]:
        loaded = load(name, device=device, dtype=dtype)
        return {
            **distinct_figures(loaded, num_rows=rows, num_tokens=tokens, rounds=rounds),
            **step_figures(loaded, num_rows=rows, num_blocks=blocks, num_steps=steps),
        }

    conditions = {"rows": rows, "tokens": tokens, "rounds": rounds, "blocks": blocks}
    report(
        "steering",
        measure,
        backbones=backbone or [POCKET, RANDOM],
        as_json=as_json,
        **conditions,
        steps=steps,
        timed=TIMED,
    )


if __name__ == "__main__":
    run(steering)
