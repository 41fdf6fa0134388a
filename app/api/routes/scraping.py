"""The route of the api's own metrics; workers show all of theirs themselves."""

import asyncio
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError

from app.api.dependencies import Services, ServicesOf
from app.api.http.problems import problems
from app.core.errors import WorkerUnavailableError
from app.core.telemetry.logs import get_logger
from app.core.telemetry.metrics import MEDIA_TYPE, expose
from app.library.training.jobs import count_jobs
from app.library.workspaces import in_all_workspaces

TIMEOUT_SECONDS: Final = 1.0

log = get_logger(__name__)

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse, responses=problems())
async def metrics(services: ServicesOf) -> Response:
    """Shows the metrics of this api, the training jobs and what workers do, for Prometheus."""
    jobs, load = await asyncio.gather(_jobs(services), _load(services))
    families = [*services.metrics.registry.collect(), *jobs, *load]
    return Response(expose(families), media_type=MEDIA_TYPE)


async def _jobs(services: Services) -> tuple[Metric, ...]:
    """The training jobs by state; nothing while the database does not answer."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            async with in_all_workspaces(services.sessions).begin() as session:
                counts = await count_jobs(session)
    except (SQLAlchemyError, OSError) as error:
        log.warning("jobs cannot be counted", reason=type(error).__name__)
        return ()
    family = GaugeMetricFamily("vlibrary_training_jobs", "Training jobs by state", labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return (family,)


async def _load(services: Services) -> tuple[Metric, ...]:
    """The requests at the workers of each backbone; nothing while none of them answers."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            serving = await services.workers.pool.ready()
    except (WorkerUnavailableError, TimeoutError) as error:
        log.warning("requests of workers cannot be counted", reason=type(error).__name__)
        return ()
    running = GaugeMetricFamily(
        "vlibrary_num_requests_running", "Sequences that hold a row", labels=["backbone"]
    )
    waiting = GaugeMetricFamily(
        "vlibrary_num_requests_waiting",
        "Requests that are prepared or wait for a row",
        labels=["backbone"],
    )
    for name in sorted({health.backbone.name for health in serving}):
        there = [health for health in serving if health.backbone.name == name]
        running.add_metric([name], sum(health.running for health in there))
        waiting.add_metric([name], sum(health.waiting for health in there))
    return (running, waiting)
