"""The route of all metrics: the api's own, and those of the workers with their name as a label."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import SQLAlchemyError

from app.api.dependencies import Services, ServicesOf
from app.api.problems import problems
from app.core.logs import get_logger
from app.core.metrics import MEDIA_TYPE, expose
from app.library.database import run_transaction
from app.library.jobs import count_jobs

DATABASE_TIMEOUT_SECONDS: Final = 1.0
WORKER_LABEL: Final = "worker"

log = get_logger(__name__)

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse, responses=problems())
async def metrics(services: ServicesOf) -> Response:
    """Shows the metrics of the api and of every worker that answers, for Prometheus."""
    texts, jobs = await asyncio.gather(services.workers.metrics(), _jobs(services))
    workers = {_name_of(url): _families(text) for url, text in texts.items()}
    own = [*services.metrics.registry.collect(), *jobs, _up(workers)]
    return Response(expose(merge(own, workers)), media_type=MEDIA_TYPE)


def merge(own: Iterable[Metric], workers: Mapping[str, Iterable[Metric]]) -> Iterable[Metric]:
    """All families, each once; samples of a worker have a label with its name.

    A family that a worker shows as another type than it was seen as before is left out there.
    """
    merged = {family.name: family for family in own}
    for name, families in workers.items():
        for family in families:
            empty = Metric(family.name, family.documentation, family.type)
            known = merged.setdefault(family.name, empty)
            if known.type == family.type:
                known.samples += [
                    sample._replace(labels={**sample.labels, WORKER_LABEL: name})
                    for sample in family.samples
                ]
    return merged.values()


def _families(text: str | None) -> tuple[Metric, ...]:
    """The families of a worker's text; none when it is missing or malformed."""
    if text is None:
        return ()
    try:
        return tuple(text_string_to_metric_families(text))
    except ValueError as error:
        log.warning("metrics of a worker cannot be read", reason=type(error).__name__)
        return ()


def _name_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _up(workers: Mapping[str, tuple[Metric, ...]]) -> Metric:
    family = GaugeMetricFamily(
        "vlibrary_worker_up", "Whether a worker showed its metrics", labels=[WORKER_LABEL]
    )
    for name, families in workers.items():
        family.add_metric([name], 1.0 if families else 0.0)
    return family


async def _jobs(services: Services) -> tuple[Metric, ...]:
    """The training jobs by state; nothing while the database does not answer."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS):
            counts = await run_transaction(services.sessions, count_jobs)
    except (SQLAlchemyError, OSError) as error:
        log.warning("jobs cannot be counted", reason=type(error).__name__)
        return ()
    family = GaugeMetricFamily("vlibrary_training_jobs", "Training jobs by state", labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return (family,)
