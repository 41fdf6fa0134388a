"""`python -m benchmarks.beside_training`: what a training adds to the wait for an answer."""

from typing import Annotated, Any, Final

import typer

from benchmarks.figures.beside import beside_figures
from benchmarks.harness import POCKET, AsJson, Backbones, Rounds, report, run

TIMED: Final = (
    "first tokens as the answers tell them (queue_ms + prefill_ms), one request after the other; a "
    "pass is the worker's device time of training over the passes that it counted meanwhile"
)


def beside_training(
    *,
    requests: Annotated[int, typer.Option(min=1, help="Requests alone, and beside.")] = 100,
    rounds: Rounds = 3,
    tokens: Annotated[int, typer.Option(min=1, max=1024, help="Most new tokens.")] = 4,
    backbone: Backbones = None,
    as_json: AsJson = False,
) -> None:
    """P14: first token beside a training minus the same alone, p95 each, in passes of the training.

    Every round asks the requests with nothing beside them, then beside a training of its own.
    """

    def measure(name: str) -> dict[str, Any]:
        return beside_figures(name, num_requests=requests, num_rounds=rounds, max_tokens=tokens)

    report(
        "beside_training",
        measure,
        backbones=backbone or [POCKET],
        as_json=as_json,
        requests=requests,
        rounds=rounds,
        tokens=tokens,
        timed=TIMED,
    )


if __name__ == "__main__":
    run(beside_training)
