"""P14: what a training adds to the wait for an answer's first token, in passes of the training.

From outside: a real service, one client that asks one request after the other, first with nothing
beside it and then beside a training, whose passes the worker counts itself.
"""

import json
import secrets
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import numpy as np

from app.cli.processes.ports import free_port
from app.core.errors import UnavailableError
from benchmarks.harness import bar, percentile
from benchmarks.setting.service import (
    JSON_HEADERS,
    ROUTE,
    bodies,
    served,
    service_conditions,
    settings_for,
)
from benchmarks.setting.worker_metrics import WorkerMetrics
from tools.pocket.world import SHAPES, render_scene, sample_scene
from vlibrary_client import Client, Dataset, Job

HOST: Final = "127.0.0.1"
NUM_BODIES: Final = 8
NUM_ITEMS: Final = 120
TIMEOUT_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.2
PASSES: Final = "vlibrary_training_passes_total"
SECONDS: Final = 'vlibrary_device_seconds_total{use="training"}'
# Long enough for all that is asked beside it; what it learns is of no account.
TRAINING: Final[Mapping[str, Any]] = {
    "shots": 4,
    "contexts_per_query": 1,
    "trial_steps": 0,
    "max_steps": 100_000,
    "evaluate_every": 10_000,
}


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round found.

    Attributes:
        alone_ms: First tokens with nothing beside them.
        beside_ms: First tokens beside the training.
        pass_ms: Of the training's passes meanwhile, the mean.
    """

    alone_ms: Sequence[float]
    beside_ms: Sequence[float]
    pass_ms: float


def beside_figures(
    backbone: str, *, num_requests: int, num_rounds: int, max_tokens: int
) -> dict[str, Any]:
    """P14 with the milliseconds that it is made of.

    Args:
        backbone: As given on the command line.
        num_requests: Requests of each side of a round.
        num_rounds: Rounds, each with a training of its own.
        max_tokens: Most tokens of an answer.
    """
    port, secret = free_port(HOST), secrets.token_urlsafe(32)
    with TemporaryDirectory(prefix="vlibrary-bench-") as parent:
        settings = settings_for(backbone, Path(parent), worker_port=port, worker_secret=secret)
        with (
            served(settings=settings) as service,
            Client(service.url) as client,
            httpx.Client(base_url=service.url, timeout=TIMEOUT_SECONDS, trust_env=False) as http,
            WorkerMetrics(f"http://{HOST}:{port}", secret=secret) as metrics,
        ):
            asking = _Asking(http, bodies(NUM_BODIES, max_tokens=max_tokens))
            asking.first_tokens(NUM_BODIES)
            dataset = client.datasets.upload(_items(), name="beside")
            rounds = [
                _round(client, dataset, asking=asking, metrics=metrics, num_requests=num_requests)
                for _ in bar(num_rounds, "P14")
            ]
            conditions = service_conditions(service, name=backbone)
    return {**figures_of(rounds), **conditions}


def figures_of(rounds: Sequence[Round]) -> dict[str, Any]:
    """P14, the median of the rounds.

    Args:
        rounds: At least one.
    """
    found = [
        (percentile(one.beside_ms, 0.95) - percentile(one.alone_ms, 0.95)) / one.pass_ms
        for one in rounds
    ]
    return {
        "P14": round(statistics.median(found), 3),
        "P14_rounds": [round(one, 3) for one in found],
        "P14_first_token_p95_ms": {
            "alone": _median(percentile(one.alone_ms, 0.95) for one in rounds),
            "beside a training": _median(percentile(one.beside_ms, 0.95) for one in rounds),
        },
        "P14_pass_mean_ms": _median(one.pass_ms for one in rounds),
    }


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


class _Asking:
    """One client that asks one request after the other."""

    def __init__(self, http: httpx.Client, made: Sequence[bytes]) -> None:
        self._http = http
        self._made = made

    def first_tokens(self, num_requests: int) -> list[float]:
        """Milliseconds until each answer's first token, as the worker tells them."""
        found = []
        for index in range(num_requests):
            body = self._made[index % len(self._made)]
            response = self._http.post(ROUTE, content=body, headers=JSON_HEADERS)
            timings = json.loads(response.raise_for_status().content)["timings"]
            found.append(timings["queue_ms"] + timings["prefill_ms"])
        return found


def _round(
    client: Client,
    dataset: Dataset,
    *,
    asking: _Asking,
    metrics: WorkerMetrics,
    num_requests: int,
) -> Round:
    alone = asking.first_tokens(num_requests)
    job = client.train("beside", dataset, **TRAINING)
    try:
        _await_steps(job)
        before = metrics.read()
        beside = asking.first_tokens(num_requests)
        after = metrics.read()
    finally:
        job.cancel()
        _await_end(job)
    passes = after[PASSES] - before[PASSES]
    if not passes:
        raise UnavailableError("the training made no pass beside the requests")
    return Round(
        alone_ms=alone,
        beside_ms=beside,
        pass_ms=(after[SECONDS] - before[SECONDS]) / passes * 1000,
    )


def _await_steps(job: Job) -> None:
    """Returns when the training is at its optimiser steps."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        found = job.refresh()
        if found.is_final:
            raise UnavailableError(f"the training ended as {found.state}: {found.error}")
        if found.progress is not None and found.progress.phase == "student":
            return
        time.sleep(POLL_SECONDS)
    raise UnavailableError("the training did not come to its steps in time")


def _await_end(job: Job) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not job.refresh().is_final and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _items() -> list[dict[str, Any]]:
    """Labelled pictures of the pocket's world."""
    rng = np.random.default_rng(1)
    scenes = [sample_scene(rng) for _ in range(NUM_ITEMS)]
    return [
        {
            "image": render_scene(scene, rng),
            "question": "what shape is this?",
            "answer": SHAPES[scene.shape],
        }
        for scene in scenes
    ]
