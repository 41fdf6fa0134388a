"""The loop that takes jobs ends when it is left, also when its driver does not hear of it."""

import asyncio
from typing import Any

import pytest

from app.worker.training import queue as jobs
from app.worker.training.queue import taking_jobs

pytestmark = pytest.mark.anyio


class IdleTrainer:
    """Is never given a job."""

    is_draining = False

    def drain(self) -> None:
        self.is_draining = True


def _loops() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "jobs"]


async def test_leaving_ends_the_loop(database: str) -> None:
    for seconds in (0.0, 0.01, 0.1):
        trainer: Any = IdleTrainer()
        async with taking_jobs(trainer, url=database):
            await asyncio.sleep(seconds)
        assert trainer.is_draining
        assert _loops() == []


async def test_a_driver_that_turns_cancellation_into_an_error_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = 0

    async def connect(*_: object, **__: object) -> None:
        nonlocal starts
        starts += 1
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            raise OSError("the connection broke") from None

    monkeypatch.setattr(jobs, "_take", connect)
    monkeypatch.setattr(jobs, "PAUSE_AFTER_FAILURE_SECONDS", 0.01)
    trainer: Any = IdleTrainer()
    async with taking_jobs(trainer, url="nowhere"):
        await asyncio.sleep(0.01)
    assert (starts, _loops()) == (1, [])
