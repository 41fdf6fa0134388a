"""`python -m benchmarks.memory`: how much more than its weights a worker keeps in memory."""

from typing import Annotated, Any, Final

import typer

from benchmarks.figures.resident import resident_figures
from benchmarks.harness import LARGE, POCKET, AsJson, Backbones, report, run

TIMED: Final = (
    "resident memory of the worker's process as it tells it itself, after the requests; the "
    "weights are the safetensors files of the checkpoint"
)


def memory(
    *,
    requests: Annotated[int, typer.Option(min=1, help="Requests before.")] = 16,
    tokens: Annotated[int, typer.Option(min=1, max=1024, help="Most new tokens.")] = 8,
    backbone: Backbones = None,
    as_json: AsJson = False,
) -> None:
    """P15: resident memory of a worker over the bytes of its weights, in the checkpoint's dtype.

    It is judged on backbones of at least 250 million parameters. What the pocket's worker keeps,
    which has next to no weights, is what the program takes by itself.
    """

    def measure(name: str) -> dict[str, Any]:
        return resident_figures(name, num_requests=requests, max_tokens=tokens)

    report(
        "memory",
        measure,
        backbones=backbone or [LARGE, POCKET],
        as_json=as_json,
        requests=requests,
        tokens=tokens,
        timed=TIMED,
    )


if __name__ == "__main__":
    run(memory)
