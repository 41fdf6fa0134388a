"""What a training job meets with, in a real database: bad settings, full disks, a lost server."""

import asyncio
import errno
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import StorageFullError, StorageUnavailableError
from app.library.records import JobRecord
from app.library.training.attempts import claim_job
from app.library.training.jobs import list_jobs, request_cancel
from app.library.training.queue import is_waiting
from app.method.training.distillation import TrainingResult
from app.method.training.progress import Steps, TrainingProgress
from app.worker.training import checkpoints as checkpoints_module
from app.worker.training import trainer as training_module
from app.worker.training.attempt import Attempt, send_heartbeat
from app.worker.training.trainer import Trainer
from tests.fakes.library import events_of
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.shop import CONFIG, Shop
from tests.fakes.waiting import SECONDS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("config", "changes", "code"),
    [
        ({"no_such_setting": 1}, {}, "invalid-input"),
        ({"shots": 10**6}, {}, "invalid-input"),
        (CONFIG, {"backbone_fingerprint": "0" * 64}, "incompatible-backbone"),
        (CONFIG, {"examples": tiny_examples(2)}, "invalid-dataset"),
    ],
)
async def test_a_job_that_cannot_be_done_fails_with_its_reason(  # noqa: PLR0917 - parameters
    shop: Shop, config: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    job_id = await shop.enqueue(config, **changes)
    await shop.trainer.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.error_code) == ("failed", code)
    assert job.error_message


async def test_a_foreign_failure_is_told_without_its_message(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> Steps[TrainingResult]:
        yield None
        raise RuntimeError("question: a secret?")

    monkeypatch.setattr("app.worker.training.trainer.training_steps", fail)
    job_id = await shop.enqueue(CONFIG)
    await shop.trainer.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.error_code) == ("failed", "error")
    assert "secret" not in (job.error_message or "")


async def test_a_database_that_is_away_for_a_while_does_not_end_a_training(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = threading.Event()

    async def unreliable(attempt: Any, progress: Any, session: AsyncSession) -> bool:  # noqa: ANN401
        if not failures.is_set() and progress is not None:
            failures.set()
            raise OperationalError("select", {}, Exception("the server went away"))
        return await send_heartbeat(attempt, progress, session)

    monkeypatch.setattr(training_module, "send_heartbeat", unreliable)
    job_id = await shop.enqueue({**CONFIG, "epochs": 6})
    await shop.trainer.run(job_id)
    assert failures.is_set()
    assert (await shop.job(job_id)).state == "succeeded"


@pytest.mark.parametrize(
    "failure",
    [
        OperationalError("select", {}, Exception("the server went away")),
        ValueError("nobody thought of it"),
    ],
)
async def test_progress_of_a_lost_transaction_is_told_by_the_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    told: list[Any] = []

    async def unreliable(attempt: Any, progress: Any, session: AsyncSession) -> bool:  # noqa: ANN401
        told.append(progress)
        if len(told) == 1:
            raise failure
        return await send_heartbeat(attempt, progress, session)

    monkeypatch.setattr(training_module, "send_heartbeat", unreliable)
    attempt = Attempt(job=await _claimed(shop), token=1)
    attempt.progress = TrainingProgress(phase="student", step=3, num_steps=9)
    heartbeats = asyncio.create_task(shop.trainer._send_heartbeats(attempt))
    async with asyncio.timeout(SECONDS):
        while len(told) < 2 or attempt.progress is not None:  # noqa: ASYNC110 - the database knows
            await asyncio.sleep(0.005)
    heartbeats.cancel()
    async with shop.sessions() as session:
        events = await events_of(session, attempt.job.id)
    assert [one.data["step"] for one in events if "step" in one.data] == [3]


async def _claimed(shop: Shop) -> JobRecord:
    job_id = await shop.enqueue(CONFIG)
    async with shop.sessions() as session, session.begin():
        job, token = await claim_job(session, job_id)
    assert token == 1
    return job


async def test_a_draining_worker_takes_no_job(shop: Shop) -> None:
    job_id = await shop.enqueue(CONFIG)
    shop.trainer.drain()
    await shop.trainer.run(job_id)
    assert (await shop.job(job_id)).state == "queued"
    async with shop.sessions() as session:
        assert len((await list_jobs(session)).items) == 1
        # Whoever is there to do it finds it at once.
        assert await is_waiting(session, job_id)


async def test_a_checkpoint_that_cannot_be_stored_fails_the_job_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_key: str, _data: bytes) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(shop.objects, "put_bytes", refused)
    job_id = await shop.enqueue({**CONFIG, "checkpoint_every": 1})
    await shop.trainer.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.error_message) == (
        "failed",
        "the backbone failed on this request: PermissionError",
    )


NOT_TAKEN = [StorageFullError("no room"), StorageUnavailableError("away")]


@pytest.mark.parametrize("refusal", NOT_TAKEN)
async def test_checkpoints_that_are_not_taken_do_not_end_a_training(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    put, sizes = shop.objects.put_bytes, []

    async def full_at_first(key: str, data: bytes) -> None:
        sizes.append(len(data))
        if len(sizes) < 3:
            raise refusal
        await put(key, data)

    monkeypatch.setattr(shop.objects, "put_bytes", full_at_first)
    job_id = await shop.enqueue(CONFIG)
    await shop.trainer.run(job_id)
    assert len(sizes) > 3
    assert (await shop.job(job_id)).state == "succeeded"


async def test_a_checkpoint_that_the_store_never_takes_does_not_end_a_training(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, given_up = [], []

    async def hang(key: str, data: bytes) -> None:
        tried.append((key, len(data)))
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(key)

    monkeypatch.setattr(checkpoints_module, "TIMEOUT_SECONDS", 0.02)
    with monkeypatch.context() as patched:
        patched.setattr(shop.objects, "put_bytes", hang)
        job_id = await shop.enqueue(CONFIG)
        await shop.trainer.run(job_id)
    assert (await shop.job(job_id)).state == "succeeded"
    # No newer one is sent while an older one might still replace it.
    assert len(tried) == len(given_up) == 1


async def test_a_job_that_is_cancelled_while_its_items_cannot_be_had_is_cancelled(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_key: str, _path: Path) -> None:
        async with shop.sessions() as session, session.begin():
            await request_cancel(session, job_id)
        # Until the trainer has heard of it.
        await asyncio.sleep(0.5)
        raise StorageUnavailableError("away")

    monkeypatch.setattr(shop.objects, "get_file", refuse)
    job_id = await shop.enqueue(CONFIG)
    await asyncio.wait_for(shop.trainer.run(job_id), SECONDS)
    job = await shop.job(job_id)
    assert (job.state, job.error_code) == ("cancelled", None)


@pytest.mark.parametrize(
    "refusal",
    [OSError(errno.ENOSPC, "No space left on device"), StorageUnavailableError("away")],
)
async def test_a_job_waits_until_its_items_can_be_had(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    async def refuse(_key: str, _path: Path) -> None:
        raise refusal

    job_id = await shop.enqueue({**CONFIG, "epochs": 1})
    with monkeypatch.context() as patched:
        patched.setattr(training_module, "PAUSE_WITHOUT_STORAGE_SECONDS", 0.0)
        patched.setattr(shop.objects, "get_file", refuse)
        for _ in range(7):
            await shop.trainer.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.attempts, job.error_code) == ("queued", 0, None)
    await shop.trainer.run(job_id)
    assert (await shop.job(job_id)).state == "succeeded"


async def test_a_database_that_is_lost_when_a_result_is_stored_fails_no_job(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_args: object, **_options: object) -> None:
        raise OperationalError("insert", {}, Exception("the server went away"))

    job_id = await shop.enqueue({**CONFIG, "epochs": 1})
    with monkeypatch.context() as patched:
        patched.setattr(training_module, "store_result", lost)
        await shop.trainer.run(job_id)
    assert (await shop.job(job_id)).state == "running"
    await shop.take_for_dead(job_id)
    await shop.trainer.run(job_id)
    assert (await shop.job(job_id)).state == "succeeded"
    assert await shop.num_vectors() == 1


async def test_a_job_whose_checkpoint_was_made_otherwise_begins_anew(shop: Shop) -> None:
    job_id = await shop.enqueue({**CONFIG, "epochs": 60, "evaluate_every": 60})
    training = asyncio.create_task(shop.trainer.run(job_id))
    await shop.until(job_id, lambda job: job.progress.get("phase") == "student")
    shop.trainer.drain()
    await training
    assert (await shop.job(job_id)).state == "queued"
    # As with another `training_pass_tokens`, or another version that trains otherwise.
    other = Trainer(
        shop.backbone,
        device=shop.device,
        sessions=shop.sessions,
        objects=shop.objects,
        pass_tokens=500,
    )
    await other.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.error_code) == ("succeeded", None)
    assert await shop.num_vectors() == 1
