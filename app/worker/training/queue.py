"""The loop that brings training jobs to a worker: deliveries of the queue in Postgres.

Jobs left behind by dead workers are queued again by the api, which is never busy with training.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from app.core.errors import ConfigurationError
from app.core.telemetry.logs import get_logger
from app.library.migrate import require_migrated
from app.library.training.queue import TRAINING_QUEUE, TRAINING_TASK, make_queue, queue_of
from app.worker.training.trainer import Trainer

POLL_SECONDS: Final = 2.0
PAUSE_AFTER_FAILURE_SECONDS: Final = 2.0
STOP_TIMEOUT_SECONDS: Final = 30.0

log = get_logger(__name__)


@asynccontextmanager
async def taking_jobs(
    trainer: Trainer, *, url: str, backbone_fingerprint: str
) -> AsyncIterator[Callable[[], None]]:
    """Take jobs for the backbone or for any during the block, one at a time.

    At its end the one at hand is left for later.

    Yields:
        What ends the taking at once; the job at hand goes on to its next step.
    """
    ending = asyncio.Event()
    take = partial(_take, trainer, url=url, queues=[TRAINING_QUEUE, queue_of(backbone_fingerprint)])
    taking = asyncio.create_task(_take_until(ending, take), name="jobs")

    def stop() -> None:
        trainer.drain()
        if not ending.is_set():
            ending.set()
            # The queue waits for the job at hand; cancelled twice it would not.
            taking.cancel()

    try:
        yield stop
    finally:
        stop()
        done, _ = await asyncio.wait([taking], timeout=STOP_TIMEOUT_SECONDS)
        if not done:
            taking.cancel()


async def _take_until(ending: asyncio.Event, take: Callable[[], Awaitable[None]]) -> None:
    told = ""
    # Cancelled while it connects, the driver may raise an error of its own instead.
    while not ending.is_set():
        try:
            await take()
        except ConfigurationError as error:
            if error.message != told:
                log.warning("no jobs taken, waits", action="jobs.queue", reason=error.message)
            told = error.message
        except Exception:
            # The database may be away for a while.
            log.exception("queue failed, goes on", action="jobs.queue")
        await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)


async def _take(trainer: Trainer, *, url: str, queues: Sequence[str]) -> None:
    await asyncio.to_thread(require_migrated, url)
    queue = make_queue(url)

    @queue.task(name=TRAINING_TASK, queue=TRAINING_QUEUE)
    async def train(job_id: str) -> None:
        await trainer.run(uuid.UUID(job_id))

    async with queue.open_async():
        await queue.run_worker_async(
            queues=queues,
            concurrency=1,
            fetch_job_polling_interval=POLL_SECONDS,
            install_signal_handlers=False,
            delete_jobs="always",
        )
