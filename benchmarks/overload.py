"""`python -m benchmarks.overload`: what who is let in feels of ten times too many requests."""

from typing import Annotated, Any, Final

import typer

from benchmarks.figures.crowding import overload_figures
from benchmarks.harness import (
    POCKET,
    RANDOM,
    AsJson,
    Backbones,
    Rounds,
    Rows,
    report,
    run,
)

TIMED: Final = (
    "at the client, from sending a request to its whole answer; time to first token is that minus "
    "the answer's decode_ms. At capacity there is one client a place; in overload there are "
    "`times` as many, and a refused one comes back after the mean time of an answer at capacity, "
    "which offers `times` the requests that the service can answer"
)


def overload(
    *,
    rows: Rows = 16,
    waiting: Annotated[int, typer.Option(min=1, max=256, help="Places to wait for a row.")] = 4,
    times: Annotated[int, typer.Option(min=2, max=20, help="Clients a place in overload.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="Length of a phase.")] = 4.0,
    rounds: Rounds = 5,
    tokens: Annotated[int, typer.Option(min=1, max=1024, help="Most new tokens.")] = 8,
    backbone: Backbones = None,
    as_json: AsJson = False,
) -> None:
    """P10: time to first token in overload over the same at capacity, and how refusals are told.

    P10 is the 95th percentile of those who are admitted in overload over the 95th percentile at
    capacity, the median of the rounds; P10_reject_p99_ms the 99th percentile of the time to a 429.
    Only a service of its own on 127.0.0.1 is asked, by a bounded number of connections.
    """

    def measure(name: str) -> dict[str, Any]:
        return overload_figures(
            name,
            num_rows=rows,
            num_waiting=waiting,
            factor=times,
            seconds=seconds,
            num_rounds=rounds,
            max_tokens=tokens,
        )

    conditions = {"rows": rows, "waiting": waiting, "times": times, "seconds": seconds}
    report(
        "overload",
        measure,
        backbones=backbone or [POCKET, RANDOM],
        as_json=as_json,
        **conditions,
        rounds=rounds,
        tokens=tokens,
        timed=TIMED,
    )


if __name__ == "__main__":
    run(overload)
