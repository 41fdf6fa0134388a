"""Maintenance beside the requests: stalled jobs, old rows, files that killed processes left."""

import asyncio
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.api.dependencies import Services
from app.core.folders import scratch_dir
from app.core.telemetry.logs import get_logger
from app.library.access.idempotency import forget_answers
from app.library.database import logging_failures
from app.library.training.attempts import requeue_stalled
from app.library.training.jobs import forget_progress
from app.library.workspaces import in_all_workspaces

CHECKS_PER_STALL: Final = 4
# All answers and jobs are looked at for it.
FORGET_SECONDS: Final = 3600.0
ABANDONED_SECONDS: Final = 24 * 3600.0

log = get_logger(__name__)


async def maintain(services: Services) -> None:
    """Removes abandoned files, then looks for stalled jobs and what is old until cancelled."""
    pause_seconds = services.settings.job_stalled_seconds / CHECKS_PER_STALL
    with logging_failures("cannot remove abandoned files"):
        await asyncio.to_thread(remove_abandoned_files, _files_in_work(services))
    forgot_at = -math.inf
    while True:
        with logging_failures("cannot look for stalled jobs and what is old"):
            await requeue_stalled_jobs(services)
            if time.monotonic() - forgot_at >= FORGET_SECONDS:
                # Also if it fails: it would take all the time of the others.
                forgot_at = time.monotonic()
                await forget_old(services)
        await asyncio.sleep(pause_seconds)


async def requeue_stalled_jobs(services: Services) -> None:
    """Queues jobs again whose worker fell silent."""
    settings = services.settings
    async with in_all_workspaces(services.sessions).begin() as session:
        queued = await requeue_stalled(
            session,
            older_than_seconds=settings.job_stalled_seconds,
            max_attempts=settings.job_max_attempts,
        )
    for job_id in queued:
        log.warning("job stalled, queued again", action="job.requeue", job_id=str(job_id))


async def forget_old(services: Services) -> None:
    """Drops answers that are shown no more, and the progress of jobs that ended long ago."""
    async with in_all_workspaces(services.sessions).begin() as session:
        await forget_progress(session)
        await forget_answers(session)


def _files_in_work(services: Services) -> Iterator[Path]:
    """What is there while a process receives, reads or stores it, and stays if it is killed."""
    yield from scratch_dir(services.settings.data_dir).glob("*")
    yield from services.store.unfinished()


def remove_abandoned_files(paths: Iterable[Path]) -> None:
    """Deletes those of the files and folders that nobody has changed for a day."""
    oldest = time.time() - ABANDONED_SECONDS
    for path in paths:
        # What its owner or another api has removed meanwhile is gone as well.
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= oldest:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
