"""The loop that brings training jobs to a worker: deliveries of the queue in Postgres.

Jobs left behind by dead workers are queued again by the api, which is never busy with training.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from app.core.telemetry.logs import get_logger
from app.library.training.queue import TRAINING_QUEUE, TRAINING_TASK, make_queue
from app.worker.training.trainer import Trainer

POLL_SECONDS: Final = 2.0
PAUSE_AFTER_FAILURE_SECONDS: Final = 2.0
STOP_TIMEOUT_SECONDS: Final = 30.0

log = get_logger(__name__)


@asynccontextmanager
async def taking_jobs(trainer: Trainer, *, url: str) -> AsyncIterator[Callable[[], None]]:
    """Take jobs during the block, one at a time; at its end the one at hand is left for later.

    Yields:
        What ends the taking at once; the job at hand goes on to its next step.
    """
    ending = asyncio.Event()
    taking = asyncio.create_task(_take_until(ending, trainer, url=url), name="jobs")

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


async def _take_until(ending: asyncio.Event, trainer: Trainer, *, url: str) -> None:
    # Cancelled while it connects, the driver may raise an error of its own instead.
    while not ending.is_set():
        try:
            await _take(trainer, url=url)
        except Exception:
            # The database may be away for a while.
            log.exception("queue failed, goes on", action="jobs.queue")
        await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)


async def _take(trainer: Trainer, *, url: str) -> None:
    queue = make_queue(url)

    @queue.task(name=TRAINING_TASK, queue=TRAINING_QUEUE)
    async def train(job_id: str) -> None:
        await trainer.run(uuid.UUID(job_id))

    async with queue.open_async():
        await queue.run_worker_async(
            queues=[TRAINING_QUEUE],
            concurrency=1,
            fetch_job_polling_interval=POLL_SECONDS,
            install_signal_handlers=False,
            delete_jobs="always",
        )
