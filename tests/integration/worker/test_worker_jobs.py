"""The loop that takes jobs ends when it is left, also when its driver does not hear of it."""

import asyncio
import uuid
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from app.library.database import conninfo, opened
from app.library.migrate import require_migrated, upgrade
from app.library.training.queue import enqueue, is_waiting
from app.postgres.server import EmbeddedPostgres
from app.worker.training import queue as jobs
from app.worker.training.queue import taking_jobs
from app.worker.training.trainer import Trainer
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio

OWN = "a" * 64


class IdleTrainer:
    """Is never given a job."""

    is_draining = False

    def drain(self) -> None:
        self.is_draining = True


class TakingTrainer(IdleTrainer):
    """Notes what it is given."""

    def __init__(self) -> None:
        self.taken: list[uuid.UUID] = []

    async def run(self, job_id: uuid.UUID) -> None:
        self.taken.append(job_id)


def _loops() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "jobs"]


async def test_leaving_ends_the_loop(database: str) -> None:
    for seconds in (0.0, 0.01, 0.1):
        trainer: Any = IdleTrainer()
        async with taking_jobs(trainer, url=database, backbone_fingerprint=OWN):
            await asyncio.sleep(seconds)
        assert trainer.is_draining
        assert _loops() == []


async def test_a_worker_that_drains_takes_no_delivery_any_more(
    database: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    trainer = TakingTrainer()
    taking = taking_jobs(cast("Trainer", trainer), url=database, backbone_fingerprint=OWN)
    async with taking as stop:
        async with sessions() as session, session.begin():
            await enqueue(session, uuid.uuid4(), backbone_fingerprint=None)
        await until(lambda: len(trainer.taken) == 1)
        stop()
        async with sessions() as session, session.begin():
            await enqueue(session, trainer.taken[0], backbone_fingerprint=None)
    assert len(trainer.taken) == 1
    async with sessions() as session:
        assert await is_waiting(session, trainer.taken[0])


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
    async with taking_jobs(trainer, url="nowhere", backbone_fingerprint=OWN):
        await asyncio.sleep(0.01)
    assert (starts, _loops()) == (1, [])


async def test_a_worker_says_once_that_its_database_is_not_migrated_and_waits_until_it_is(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(conninfo(postgres.url), autocommit=True) as connection:
        connection.execute("CREATE DATABASE not_migrated")
    url = make_url(postgres.url).set(database="not_migrated").render_as_string(hide_password=False)
    monkeypatch.setattr(jobs, "PAUSE_AFTER_FAILURE_SECONDS", 0.01)
    asked = list[str]()

    def noted(asked_of: str) -> None:
        asked.append(asked_of)
        require_migrated(asked_of)

    monkeypatch.setattr(jobs, "require_migrated", noted)
    trainer = TakingTrainer()
    with capture_logs() as logs:
        async with taking_jobs(cast("Trainer", trainer), url=url, backbone_fingerprint=OWN):
            await until(lambda: len(asked) > 3)
            (line,) = logs
            assert (line["log_level"], line["event"]) == ("warning", "no jobs taken, waits")
            assert line["reason"].endswith("found None; run vlibrary migrate")
            await asyncio.to_thread(upgrade, url)
            async with opened(url) as sessions, sessions() as session, session.begin():
                await enqueue(session, uuid.uuid4(), backbone_fingerprint=None)
            await until(lambda: len(trainer.taken) == 1)
    assert logs[1:] == []


async def test_a_worker_takes_jobs_for_its_backbone_and_for_any(
    database: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    trainer = TakingTrainer()
    foreign, own, any_one = (uuid.uuid4() for _ in range(3))
    async with sessions() as session, session.begin():
        for job_id, fingerprint in ((foreign, "b" * 64), (own, OWN), (any_one, None)):
            await enqueue(session, job_id, backbone_fingerprint=fingerprint)
    async with taking_jobs(cast("Trainer", trainer), url=database, backbone_fingerprint=OWN):
        await until(lambda: len(trainer.taken) == 2)
        await asyncio.sleep(0.2)
    assert sorted(trainer.taken) == sorted([own, any_one])
    async with sessions() as session:
        assert await is_waiting(session, foreign)
