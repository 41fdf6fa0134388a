"""P10: clients at capacity and ten times as many, against a real service.

Bounded in every way: a fixed number of clients with one connection each, a fixed time, one service
of our own on this machine.
"""

import asyncio
import random
import statistics
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import httpx

from app.core.errors import VLibraryError
from benchmarks.harness import bar, median_ratio, percentile
from benchmarks.setting.connection import Connection
from benchmarks.setting.service import (
    ROUTE,
    bodies,
    served,
    service_conditions,
    settings_for,
)

NUM_BODIES: Final = 16
LEAST_PAUSE_SECONDS: Final = 0.02


@dataclass(kw_only=True)
class PhaseFigures:
    """What the clients of one phase observed.

    Attributes:
        first_token_seconds: Of each answer, until its first token.
        answer_seconds: Of each answer, until its end.
        refusal_seconds: Of each 429.
        num_hints: Refusals that said when to come back.
        asking_seconds: How long requests were begun.
        phase_seconds: How long it lasted, until the last of them was answered.
    """

    first_token_seconds: list[float] = field(default_factory=list)
    answer_seconds: list[float] = field(default_factory=list)
    refusal_seconds: list[float] = field(default_factory=list)
    num_hints: int = 0
    asking_seconds: float
    phase_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.answer_seconds) / self.phase_seconds

    @property
    def offered_per_second(self) -> float:
        """Requests a second, answered or refused, while any were begun."""
        return (len(self.answer_seconds) + len(self.refusal_seconds)) / self.asking_seconds

    def note(self, response: httpx.Response, *, seconds: float) -> bool:
        """Take down a response; whether it was an answer.

        Raises:
            VLibraryError: It was neither an answer nor a refusal.
        """
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self.refusal_seconds.append(seconds)
            self.num_hints += "retry-after" in response.headers
            return False
        if not response.is_success:
            raise VLibraryError(f"P10: wanted 200 or 429, found {response.status_code}")
        decoding = response.json()["timings"]["decode_ms"] / 1000
        self.answer_seconds.append(seconds)
        self.first_token_seconds.append(seconds - decoding)
        return True


def overload_figures(
    backbone: str,
    *,
    num_rows: int,
    num_waiting: int,
    factor: int,
    seconds: float,
    num_rounds: int,
    max_tokens: int,
) -> dict[str, Any]:
    """P10 with what was offered, answered and refused.

    Args:
        backbone: As given on the command line.
        num_rows: Rows of the worker's engine.
        num_waiting: Requests that may wait for one.
        factor: Clients a place in overload.
        seconds: Length of a phase; answers under way at its end still count.
        num_rounds: Rounds of one phase each.
        max_tokens: Most tokens of an answer.
    """
    made = bodies(NUM_BODIES, max_tokens=max_tokens)
    places = num_rows + num_waiting
    with (
        TemporaryDirectory(prefix="vlibrary-bench-") as parent,
        served(
            settings=settings_for(
                backbone, Path(parent), max_rows=num_rows, max_waiting=num_waiting
            )
        ) as service,
    ):

        def phase(
            num_clients: int, *, pause_seconds: float, seconds: float = seconds
        ) -> PhaseFigures:
            return asyncio.run(
                crowd(
                    service.url,
                    made,
                    num_clients=num_clients,
                    seconds=seconds,
                    pause_seconds=pause_seconds,
                )
            )

        # The first answers of a process are slow in ways that come only once.
        phase(places, pause_seconds=LEAST_PAUSE_SECONDS, seconds=min(1.0, seconds))
        calm: list[PhaseFigures] = []
        crowded: list[PhaseFigures] = []
        for _ in bar(num_rounds, "P10"):
            calm.append(phase(places, pause_seconds=LEAST_PAUSE_SECONDS))
            pause = max(LEAST_PAUSE_SECONDS, statistics.mean(calm[-1].answer_seconds))
            crowded.append(phase(factor * places, pause_seconds=pause))
        return {**figures_of(calm, crowded), **service_conditions(service, name=backbone)}


def figures_of(calm: Sequence[PhaseFigures], crowded: Sequence[PhaseFigures]) -> dict[str, Any]:
    """P10 and its parts from the phases of each round.

    Args:
        calm: At capacity.
        crowded: In overload.

    Raises:
        VLibraryError: Nobody was refused, so that there was no overload.
    """
    refusals = [one for figures in crowded for one in figures.refusal_seconds]
    if not refusals:
        raise VLibraryError("P10: nobody was refused, so this was no overload")
    waits = {
        "at capacity": [percentile(figures.first_token_seconds, 0.95) for figures in calm],
        "in overload": [percentile(figures.first_token_seconds, 0.95) for figures in crowded],
    }
    offered = [
        crowd_felt.offered_per_second / calm_felt.per_second
        for calm_felt, crowd_felt in zip(calm, crowded, strict=True)
    ]
    hints = sum(figures.num_hints for figures in crowded)
    return {
        "P10": round(median_ratio(waits["in overload"], waits["at capacity"]), 3),
        "P10_reject_p99_ms": round(percentile(refusals, 0.99) * 1000, 1),
        "P10_reject_p50_ms": round(percentile(refusals, 0.5) * 1000, 1),
        "P10_rejects_with_retry_after": hints / len(refusals),
        "P10_first_token_p95_ms": {
            name: round(statistics.median(values) * 1000, 1) for name, values in waits.items()
        },
        "answered_per_second": {
            "at capacity": round(statistics.median(figures.per_second for figures in calm), 1),
            "in overload": round(statistics.median(figures.per_second for figures in crowded), 1),
        },
        "offered_over_capacity": round(statistics.median(offered), 2),
        "rejects": len(refusals),
    }


async def crowd(
    url: str,
    made: Sequence[bytes],
    *,
    num_clients: int,
    seconds: float,
    pause_seconds: float,
) -> PhaseFigures:
    """What clients feel that each ask, wait for the answer and ask again.

    Args:
        url: Of the service.
        made: Bodies to send, in turn.
        num_clients: Each has one connection and one request under way.
        seconds: No request begins later.
        pause_seconds: How long a refused client stays away.
    """
    figures = PhaseFigures(asking_seconds=seconds)
    chance = random.Random(0)  # noqa: S311 - spreads clients, no secret
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Connection(url))) for _ in range(num_clients)]
        for connection in clients:
            await connection.open()
        began = perf_counter()

        async def client(number: int) -> None:
            # Together they would ask in waves.
            await asyncio.sleep(chance.uniform(0, pause_seconds))
            while perf_counter() - began < seconds:
                sent = perf_counter()
                response = await clients[number].post(ROUTE, made[number % len(made)])
                if not figures.note(response, seconds=perf_counter() - sent):
                    await asyncio.sleep(pause_seconds * chance.uniform(0.5, 1.5))

        async with asyncio.TaskGroup() as group:
            for number in range(num_clients):
                group.create_task(client(number))
        figures.phase_seconds = perf_counter() - began
    return figures
