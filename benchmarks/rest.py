"""`python -m benchmarks.rest`: what REST adds to the engine's time, and how long a start takes."""

from typing import Annotated, Any, Final

import typer

from benchmarks.figures.overhead import overhead_figures
from benchmarks.figures.starting import start_figures
from benchmarks.harness import (
    POCKET,
    AsJson,
    Backbones,
    Rounds,
    report,
    run,
)

TIMED: Final = (
    "P8 from sending a request on an open connection to its answer, minus prefill and decode as "
    "the answer tells them, so decoding the image and building the prompt count as well; P13 from "
    "starting the process to 200 of /readyz, in a folder without any data"
)


def rest(
    *,
    requests: Annotated[int, typer.Option(min=1, help="Requests a round of P8.")] = 100,
    rounds: Rounds = 5,
    starts: Annotated[int, typer.Option(min=0, help="Rounds of P13; 0 leaves it out.")] = 5,
    tokens: Annotated[int, typer.Option(min=1, max=1024, help="Most new tokens.")] = 8,
    backbone: Backbones = None,
    as_json: AsJson = False,
) -> None:
    """P8 and P13: the overhead of /steer/generate for one client, and the start of a service.

    P8 is the median overhead in milliseconds. P13 is the median of the seconds until `vlibrary
    serve` is ready in a new folder; P13_again the same in a folder it knows; P13_api the seconds
    until the api process alone is ready beside a database and a worker that run.
    """

    def measure(name: str) -> dict[str, Any]:
        overhead = overhead_figures(
            name, num_requests=requests, num_rounds=rounds, max_tokens=tokens
        )
        return {**overhead, **(start_figures(name, num_rounds=starts) if starts else {})}

    report(
        "rest",
        measure,
        backbones=backbone or [POCKET],
        as_json=as_json,
        requests=requests,
        rounds=rounds,
        starts=starts,
        tokens=tokens,
        timed=TIMED,
    )


if __name__ == "__main__":
    run(rest)
