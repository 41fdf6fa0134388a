"""One worker process: load the backbone once, start the loops, drain at the end.

The composition root of a worker; nothing else in this room makes long-lived things.
"""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from transformers.utils.logging import disable_progress_bar

from app.core.errors import ConfigurationError
from app.core.folders import scratch_dir
from app.core.settings import Settings, revealed
from app.core.telemetry.logs import get_logger
from app.core.telemetry.tracing import tracer_provider
from app.library.database import make_engine, session_factory
from app.library.storage import ObjectStore
from app.library.vector_rows import get_blob_by_sha256
from app.library.workspaces import in_all_workspaces
from app.method.backbone.loading import Backbone, load_backbone
from app.method.keys.encoder import space_id
from app.rpc.messages import HealthResponse
from app.worker.assembly import serving_parts
from app.worker.cpus import limit_threads
from app.worker.serving.server import create_app
from app.worker.serving.vector_cache import Fetch
from app.worker.training.queue import taking_jobs
from app.worker.training.trainer import Trainer

log = get_logger(__name__)


def run(settings: Settings, *, listener: socket.socket | None = None) -> None:
    """Run a worker until it is asked to end; exits with status 1 when its device broke."""
    # Its bars would stand between the lines of the log.
    disable_progress_bar()  # type: ignore[no-untyped-call] # transformers leaves it untyped
    # Until it serves there is nothing to end in order, and no waiting for the loading either.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if asyncio.run(serve_until_ended(settings, partial(_load, settings), listener=listener)):
        sys.exit(1)


def _load(settings: Settings) -> Backbone:
    limit_threads()
    backbone = load_backbone(
        settings.backbone,
        revision=settings.backbone_revision,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
    )
    log.info(
        "backbone loaded",
        action="worker.load",
        backbone=backbone.name,
        fingerprint=backbone.description.fingerprint,
    )
    # What exists now lives as long as the process; collections need not walk through it.
    gc.freeze()
    gc.enable()
    return backbone


async def serve_until_ended(
    settings: Settings, load: Callable[[], Backbone], *, listener: socket.socket | None = None
) -> bool:
    """Serve until SIGINT or SIGTERM; whether the device broke."""
    loop = asyncio.get_running_loop()
    broken = asyncio.Event()
    async with running_worker(
        settings, load, on_broken=lambda: loop.call_soon_threadsafe(broken.set)
    ) as (app, drain):
        server = _Server(
            uvicorn.Config(
                app,
                host=settings.worker_host,
                port=settings.worker_port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, int(settings.drain_timeout_seconds / 2)),
            )
        )

        def end() -> None:
            drain()
            server.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        watching = asyncio.create_task(broken.wait())
        watching.add_done_callback(lambda _: end())
        await server.serve(sockets=None if listener is None else [listener])
        watching.cancel()
    return broken.is_set()


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again, which would end the process undrained."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


@asynccontextmanager
async def running_worker(
    settings: Settings, load: Callable[[], Backbone], *, on_broken: Callable[[], object]
) -> AsyncIterator[tuple[FastAPI, Callable[[], None]]]:
    """A worker's HTTP with its loops, which are ended when the block is left, and what drains it.

    A drained worker takes nothing more and ends what can be ended; it may be drained twice.

    `load` and `on_broken` are called on the device thread.

    Raises:
        ConfigurationError: No database is named.
    """
    if settings.database_url is None:
        raise ConfigurationError("A worker needs a database: set DATABASE_URL")
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        tracing = tracer_provider(settings, service="vlibrary-worker")
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.shutdown)
        engine = make_engine(url, pool_size=settings.database_pool_size)
        stack.push_async_callback(engine.dispose)
        sessions = in_all_workspaces(session_factory(engine))
        objects = ObjectStore(settings.objects_url, scratch=scratch_dir(settings.data_dir))
        parts = await stack.enter_async_context(
            serving_parts(
                load,
                settings,
                fetch=_fetch_from(sessions),
                objects=objects,
                on_broken=on_broken,
            )
        )
        backbone, device, serving = parts.backbone, parts.device, parts.serving
        trainer = Trainer(
            backbone,
            device=device,
            sessions=sessions,
            objects=objects,
            pass_tokens=settings.training_pass_tokens,
        )
        stop_taking = trainer.drain
        if settings.worker_role != "serve":
            stop_taking = await stack.enter_async_context(
                taking_jobs(trainer, url=url, backbone_fingerprint=backbone.description.fingerprint)
            )

        def health() -> HealthResponse:
            return HealthResponse(
                status="draining" if serving.is_draining else "ready",
                backbone=backbone.description,
                space=space_id(backbone),
                running=device.num_running,
                waiting=serving.num_waiting,
                role=settings.worker_role,
            )

        def drain() -> None:
            serving.drain()
            stop_taking()

        stack.callback(drain)
        app = create_app(
            serving,
            health=health,
            max_body_bytes=settings.max_body_bytes,
            secret=revealed(settings.worker_secret),
            tracing=tracing,
        )
        yield app, drain


def _fetch_from(sessions: async_sessionmaker[AsyncSession]) -> Fetch:
    async def fetch(digest: str) -> bytes:
        async with sessions() as session:
            return await get_blob_by_sha256(session, digest)

    return fetch
