"""The composition root of the api: settings in, a ready app out.

`uvicorn app.main:create_app --factory` serves it; the database and the workers are found by the
settings. Nothing here loads torch.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api.app import Lifespan, create_api
from app.api.dependencies import Services
from app.api.http.admission import Admission
from app.api.http.job_events import JobEvents
from app.api.http.metrics import ApiMetrics
from app.api.maintenance import maintain
from app.core.errors import ConfigurationError
from app.core.settings import Settings, revealed
from app.core.telemetry.logs import configure_logs
from app.core.telemetry.tracing import tracer_provider
from app.library.database import make_engine, session_factory, without_transactions
from app.library.search.retrieval import Retriever
from app.library.storage import ObjectStore
from app.library.workspaces import in_all_workspaces
from app.rpc.client import WorkerClient
from app.web import pages

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

BODIES_IN_FLIGHT = 4
MAX_UPLOADS = 12
MAX_STREAMS = 256
# One caller alone never holds all places.
MAX_UPLOADS_PER_CALLER = 8
MAX_STREAMS_PER_CALLER = 128


def create_app(settings: Settings | None = None, *, workers: WorkerClient | None = None) -> FastAPI:
    """The api with everything it needs, opened when the app starts and closed when it ends.

    Args:
        settings: Of this process; read from the environment, and logs set up, when not given.
        workers: Who owns the accelerators; found by the settings when not given.

    Raises:
        ConfigurationError: There is no database to use, or traces cannot be exported.
    """
    if settings is None:
        settings = Settings()
        configure_logs(settings.log_level)
    if settings.database_url is None:
        raise ConfigurationError(
            "The api needs DATABASE_URL or VLIBRARY_DATABASE_URL; `vlibrary serve` brings its own"
        )
    engine = make_engine(
        settings.database_url.get_secret_value(), pool_size=settings.database_pool_size
    )
    services = make_services(
        settings,
        engine=engine,
        workers=workers
        or WorkerClient(worker_urls(settings), secret=revealed(settings.worker_secret)),
    )
    tracing = tracer_provider(settings, service="vlibrary-api")
    lifespan = _lifespan(services, engine=engine, tracing=tracing)
    api = create_api(services, lifespan=lifespan, tracing=tracing)
    api.include_router(pages.router)
    return api


def worker_urls(settings: Settings) -> tuple[str, ...]:
    """The workers of the settings, or else the one beside this process."""
    return settings.workers or (f"http://{settings.worker_host}:{settings.worker_port}",)


def make_services(settings: Settings, *, engine: AsyncEngine, workers: WorkerClient) -> Services:
    """The parts that requests share, not yet started."""
    sessions = session_factory(engine)
    # The index and the events of jobs are kept for all; routes ask for what the caller may see.
    everywhere = in_all_workspaces(sessions)
    # A worker that is away has no places either; then the others turn away what is too much.
    num_workers = len(worker_urls(settings))
    admission = Admission(
        max_requests=num_workers * (settings.max_rows + settings.max_waiting),
        max_bytes=BODIES_IN_FLIGHT * settings.max_body_bytes,
        max_requests_per_caller=settings.max_requests_per_caller,
    )
    uploads = Admission(max_requests=MAX_UPLOADS, max_requests_per_caller=MAX_UPLOADS_PER_CALLER)
    streams = Admission(max_requests=MAX_STREAMS, max_requests_per_caller=MAX_STREAMS_PER_CALLER)
    return Services(
        settings=settings,
        sessions=sessions,
        reading=without_transactions(sessions),
        retriever=Retriever(
            everywhere,
            margin=settings.retrieval_margin,
            prefer=settings.retrieval_prefer,
            poll_seconds=settings.retrieval_poll_seconds,
        ),
        workers=workers,
        job_events=JobEvents(everywhere),
        store=ObjectStore(settings.objects_url),
        admission=admission,
        uploads=uploads,
        streams=streams,
        metrics=ApiMetrics({"answers": admission, "uploads": uploads, "streams": streams}),
    )


def _lifespan(
    services: Services, *, engine: AsyncEngine, tracing: "TracerProvider | None"
) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_api: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if tracing is not None:
                stack.push_async_callback(asyncio.to_thread, tracing.shutdown)
            stack.push_async_callback(engine.dispose)
            stack.push_async_callback(services.workers.aclose)
            await services.retriever.start()
            stack.push_async_callback(services.retriever.stop)
            stack.push_async_callback(services.job_events.stop)
            maintenance = asyncio.create_task(maintain(services), name="maintenance")
            stack.push_async_callback(_cancel, maintenance)
            yield

    return lifespan


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
