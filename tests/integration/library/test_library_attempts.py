import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import ConflictError
from app.library.records import JobRecord
from app.library.training.attempts import (
    claim_job,
    fail_job,
    finish_job,
    heartbeat,
    release_job,
    requeue_stalled,
)
from app.library.training.jobs import (
    get_job,
    request_cancel,
)
from app.library.training.queue import (
    is_waiting,
)
from tests.fakes.library import count_waiting, events_of, silence, store, store_job

pytestmark = pytest.mark.anyio


Sessions = async_sessionmaker[AsyncSession]


async def take_delivery(session: AsyncSession) -> None:
    await session.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))


async def states(session: AsyncSession, job: JobRecord) -> list[object]:
    events = await events_of(session, job.id)
    return [event.data["state"] for event in events if event.kind == "state"]


async def test_of_many_workers_one_gets_the_job(sessions: Sessions) -> None:
    async with sessions() as session:
        job = await store_job(session)
        await session.commit()

    async def claim() -> bool:
        async with sessions() as session:
            try:
                await claim_job(session, job.id)
                await session.commit()
            except ConflictError:
                return False
            return True

    assert sum(await asyncio.gather(*(claim() for _ in range(10)))) == 1


async def test_a_zombie_is_refused_and_its_result_vanishes(sessions: Sessions) -> None:
    async with sessions() as session:
        job = await store_job(session)
        _, old_token = await claim_job(session, job.id)
        await silence(session, job, seconds=100)
        await take_delivery(session)
        assert await requeue_stalled(session, older_than_seconds=60) == [job.id]
        await session.commit()
        for _ in range(2):
            with pytest.raises(ConflictError):
                await heartbeat(session, job.id, old_token, progress={})
            with pytest.raises(ConflictError):
                await heartbeat(session, job.id, old_token)
            with pytest.raises(ConflictError):
                await fail_job(session, job.id, old_token, code="x", message="y")
            with pytest.raises(ConflictError):
                await release_job(session, job.id, old_token)
            await session.rollback()
            claimed, new_token = (
                await claim_job(session, job.id)
                if (await get_job(session, job.id)).state == "queued"
                else (None, 0)
            )
            await session.commit()
            if claimed is not None:
                assert new_token > old_token
                assert claimed.attempts == 2
    async with sessions() as session:
        vectors = await store(session)
        with pytest.raises(ConflictError):
            await finish_job(session, job.id, old_token, vector_id=vectors.id)
        await session.rollback()
        assert (await get_job(session, job.id)).state == "running"
        count = await session.scalar(text("SELECT count(*) FROM vectors"))
        assert count == 0


async def test_a_job_that_is_heard_of_is_left_alone(session: AsyncSession) -> None:
    job = await store_job(session)
    _, token = await claim_job(session, job.id)
    await silence(session, job, seconds=100)
    assert await heartbeat(session, job.id, token) is False
    assert await requeue_stalled(session, older_than_seconds=60) == []
    await silence(session, job, seconds=100)
    await heartbeat(session, job.id, token, progress={"step": 1})
    assert await requeue_stalled(session, older_than_seconds=60) == []


async def test_a_requeued_job_is_delivered_again_and_keeps_its_progress(
    session: AsyncSession,
) -> None:
    job = await store_job(session)
    _, token = await claim_job(session, job.id)
    await heartbeat(session, job.id, token, progress={"step": 7})
    await take_delivery(session)
    await silence(session, job, seconds=100)
    assert await requeue_stalled(session, older_than_seconds=60) == [job.id]
    assert await is_waiting(session, job.id)
    # The one that the dead worker had stays with nobody.
    assert await session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 1
    assert await requeue_stalled(session, older_than_seconds=60) == []
    again, _ = await claim_job(session, job.id)
    assert (again.attempts, again.progress) == (2, {"step": 7})
    assert await states(session, job) == ["queued", "running", "queued", "running"]


async def test_a_delivery_lost_before_the_claim_is_sent_again(session: AsyncSession) -> None:
    job = await store_job(session)
    await silence(session, job, seconds=100)
    assert await requeue_stalled(session, older_than_seconds=60) == []
    await take_delivery(session)
    assert await requeue_stalled(session, older_than_seconds=60) == [job.id]
    assert await is_waiting(session, job.id)
    assert await states(session, job) == ["queued"]


async def test_jobs_that_wait_cost_no_statements_and_are_not_held(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        jobs = [await store_job(session) for _ in range(5)]
        for job in jobs:
            await silence(session, job, seconds=100)
    statements: list[str] = []
    async with sessions() as session, sessions() as other:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
        assert await requeue_stalled(session, older_than_seconds=60) == []
        assert len(statements) == 1
        await other.execute(text("SET LOCAL lock_timeout = '1s'"))
        await request_cancel(other, jobs[0].id)


async def test_a_job_that_is_given_back_can_be_taken_at_once(session: AsyncSession) -> None:
    job = await store_job(session)
    for _ in range(3):
        _, token = await claim_job(session, job.id)
        await take_delivery(session)
        await release_job(session, job.id, token)
        released = await get_job(session, job.id)
        assert (released.state, released.attempts) == ("queued", 0)
        assert await is_waiting(session, job.id)
        with pytest.raises(ConflictError):
            await release_job(session, job.id, token)
    assert await count_waiting(session) == 1


async def test_a_job_given_back_after_a_wish_to_cancel_ends(session: AsyncSession) -> None:
    job = await store_job(session)
    _, token = await claim_job(session, job.id)
    await request_cancel(session, job.id)
    await release_job(session, job.id, token)
    assert (await get_job(session, job.id)).state == "cancelled"


async def test_a_silent_job_whose_delivery_still_waits_is_delivered_once(
    session: AsyncSession,
) -> None:
    job = await store_job(session)
    await claim_job(session, job.id)
    await silence(session, job, seconds=100)
    assert await is_waiting(session, job.id)
    assert await requeue_stalled(session, older_than_seconds=60) == [job.id]
    assert (await get_job(session, job.id)).state == "queued"
    assert await count_waiting(session) == 1


async def test_a_job_that_loses_every_worker_fails(session: AsyncSession) -> None:
    job = await store_job(session)
    for _ in range(2):
        await claim_job(session, job.id)
        await take_delivery(session)
        await silence(session, job, seconds=100)
        await requeue_stalled(session, older_than_seconds=60, max_attempts=2)
    found = await get_job(session, job.id)
    assert (found.state, found.error_code) == ("failed", "worker-unavailable")
    with pytest.raises(ConflictError):
        await claim_job(session, job.id)


async def test_a_failure_keeps_its_code_and_sentence(session: AsyncSession) -> None:
    job = await store_job(session)
    _, token = await claim_job(session, job.id)
    await fail_job(
        session, job.id, token, code="invalid-dataset", message="no\0 items" + "x" * 5000
    )
    failed = await get_job(session, job.id)
    assert (failed.state, failed.error_code) == ("failed", "invalid-dataset")
    assert failed.error_message is not None
    assert failed.error_message.startswith("no items")
    assert len(failed.error_message) == 2000
    last = (await events_of(session, job.id))[-1]
    assert last.data["error"]["code"] == "invalid-dataset"
