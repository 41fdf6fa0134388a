"""How a job ends whose object store does not answer."""

import asyncio
from pathlib import Path

import pytest

from app.core.errors import StorageUnavailableError
from app.library.storage import checkpoint_key
from app.library.training.jobs import request_cancel
from app.worker.training import checkpoints as checkpoints_module
from app.worker.training import trainer as training_module
from app.worker.training.checkpoints import ObjectCheckpoints
from app.worker.training.trainer import Trainer
from tests.fakes.shop import CONFIG, Shop
from tests.fakes.waiting import SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "PAUSE_WITHOUT_STORAGE_SECONDS", 0.0)


async def test_a_job_whose_checkpoint_does_not_come_waits(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_key: str) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(checkpoints_module, "TIMEOUT_SECONDS", 0.02)
    monkeypatch.setattr(shop.objects, "get_bytes", hang)
    job_id = await shop.enqueue(CONFIG)
    await shop.trainer.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.attempts, job.error_code) == ("queued", 0, None)


async def test_a_worker_is_heard_of_until_its_last_checkpoint_is_stored(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, released = asyncio.Event(), asyncio.Event()

    async def slow(_checkpoints: ObjectCheckpoints) -> None:
        reached.set()
        await released.wait()

    monkeypatch.setattr(ObjectCheckpoints, "flush", slow)
    job_id = await shop.enqueue({**CONFIG, "epochs": 60, "evaluate_every": 60})
    training = asyncio.create_task(shop.trainer.run(job_id))
    await shop.until(job_id, lambda job: job.progress.get("phase") == "student")
    shop.trainer.drain()
    await asyncio.wait_for(reached.wait(), SECONDS)
    ended = (await shop.job(job_id)).heartbeat
    await shop.until(job_id, lambda job: job.heartbeat > ended)
    released.set()
    await training
    assert (await shop.job(job_id)).state == "queued"


async def test_a_job_that_is_cancelled_unheard_leaves_no_checkpoint(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_key: str, _path: Path) -> None:
        async with shop.sessions() as session, session.begin():
            await request_cancel(session, job_id)
        raise StorageUnavailableError("away")

    monkeypatch.setattr(shop.objects, "get_file", refuse)
    job_id = await shop.enqueue(CONFIG)
    await shop.objects.put_bytes(checkpoint_key(job_id), b"of an attempt before")
    trainer = Trainer(
        shop.backbone,
        device=shop.device,
        sessions=shop.sessions,
        objects=shop.objects,
        pass_tokens=512,
        heartbeat_seconds=3600.0,
    )
    await trainer.run(job_id)
    assert (await shop.job(job_id)).state == "cancelled"
    assert not await shop.objects.exists(checkpoint_key(job_id))
