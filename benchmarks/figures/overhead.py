"""P8: what a request costs beyond the engine's own time, for one client of a real service."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import httpx

from benchmarks.harness import bar
from benchmarks.setting.service import (
    JSON_HEADERS,
    ROUTE,
    bodies,
    served,
    service_conditions,
    settings_for,
)

NUM_BODIES: Final = 16
TIMEOUT_SECONDS: Final = 60.0


def overhead_figures(
    backbone: str, *, num_requests: int, num_rounds: int, max_tokens: int
) -> dict[str, Any]:
    """P8 in milliseconds, and where the time of a request goes.

    Args:
        backbone: As given on the command line.
        num_requests: Requests a round, one after the other.
        num_rounds: How many rounds; the first requests, one a body, count in none.
        max_tokens: Most tokens of an answer.
    """
    made = bodies(NUM_BODIES, max_tokens=max_tokens)
    with (
        TemporaryDirectory(prefix="vlibrary-bench-") as parent,
        served(settings=settings_for(backbone, Path(parent))) as service,
        httpx.Client(base_url=service.url, timeout=TIMEOUT_SECONDS, trust_env=False) as client,
    ):
        for body in made:
            _ask(client, body)
        rounds = [
            [_ask(client, made[index % len(made)]) for index in range(num_requests)]
            for _ in bar(num_rounds, "P8")
        ]
    return {
        "P8": round(statistics.median(_middle(asked)["overhead"] for asked in rounds), 3),
        "P8_median_ms": _middle([parts for asked in rounds for parts in asked]),
        **service_conditions(service, name=backbone),
    }


def _ask(client: httpx.Client, body: bytes) -> dict[str, float]:
    """One request's milliseconds, in parts."""
    began = perf_counter()
    response = client.post(ROUTE, content=body, headers=JSON_HEADERS)
    milliseconds = (perf_counter() - began) * 1000
    return parts_of(response.raise_for_status().json()["timings"], milliseconds=milliseconds)


def parts_of(timings: Mapping[str, float], *, milliseconds: float) -> dict[str, float]:
    """Where a request's time went.

    Args:
        timings: As the answer tells them.
        milliseconds: From sending it to its answer.
    """
    engine = timings["prefill_ms"] + timings["decode_ms"]
    return {
        "end to end": milliseconds,
        "engine": engine,
        "overhead": milliseconds - engine,
        "outside of the worker": milliseconds - timings["total_ms"],
    }


def _middle(asked: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {part: round(statistics.median(one[part] for one in asked), 3) for part in asked[0]}
