"""The route of the api's own metrics; workers show all of theirs themselves."""

import asyncio
from functools import partial
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy.exc import SQLAlchemyError

from app.api.dependencies import Services, ServicesOf
from app.api.http.problems import problems
from app.core.errors import WorkerUnavailableError
from app.core.telemetry.logs import get_logger
from app.library.training.jobs import count_jobs
from app.library.workspaces import in_all_workspaces

TIMEOUT_SECONDS: Final = 1.0

log = get_logger(__name__)

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse, responses=problems())
async def metrics(services: ServicesOf) -> Response:
    """Shows the metrics of this api, the training jobs and what workers do, for Prometheus."""
    found = CollectorRegistry()
    await asyncio.gather(_count_jobs(services, found), _count_load(services, found))
    exposition = generate_latest(services.metrics.registry) + generate_latest(found)
    return Response(exposition, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _count_jobs(services: Services, registry: CollectorRegistry) -> None:
    """The training jobs by state; nothing while the database does not answer."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            async with in_all_workspaces(services.sessions).begin() as session:
                counts = await count_jobs(session)
    except (SQLAlchemyError, OSError) as error:
        log.warning("jobs cannot be counted", reason=type(error).__name__)
        return
    jobs = Gauge("vlibrary_training_jobs", "Training jobs by state", ["state"], registry=registry)
    for state, count in counts.items():
        jobs.labels(state).set(count)


async def _count_load(services: Services, registry: CollectorRegistry) -> None:
    """The requests at the workers of each backbone; nothing while none of them answers."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            serving = await services.workers.pool.ready()
    except (WorkerUnavailableError, TimeoutError) as error:
        log.warning("requests of workers cannot be counted", reason=type(error).__name__)
        return
    gauge = partial(Gauge, labelnames=["backbone"], registry=registry)
    running = gauge("vlibrary_num_requests_running", "Sequences that hold a row")
    waiting = gauge("vlibrary_num_requests_waiting", "Requests that are prepared or wait for a row")
    for health in serving:
        running.labels(health.backbone.name).inc(health.running)
        waiting.labels(health.backbone.name).inc(health.waiting)
