import uuid

import procrastinate
import pytest
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import JSON, ConflictError, InvalidInputError, NotFoundError
from app.library.access.audit import list_audit
from app.library.database import conninfo, make_engine, session_factory
from app.library.training import jobs as library_jobs
from app.library.training.attempts import (
    claim_job,
    finish_job,
    heartbeat,
    release_job,
    requeue_stalled,
)
from app.library.training.jobs import (
    count_jobs,
    enqueue_training,
    forget_progress,
    get_job,
    list_jobs,
    new_events,
    request_cancel,
)
from app.library.training.queue import (
    TRAINING_QUEUE,
    TRAINING_TASK,
    dequeue,
    enqueue,
    is_waiting,
    make_queue,
)
from tests.fakes.library import (
    count_waiting,
    events_of,
    silence,
    some_id,
    store,
    store_dataset,
    store_job,
)

pytestmark = pytest.mark.anyio


Sessions = async_sessionmaker[AsyncSession]


async def test_a_connection_lost_at_the_queue_is_an_error_of_the_database(
    database: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async with sessions() as session:
        job_id = (await store_job(session)).id
        await session.commit()
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        async with await AsyncConnection.connect(conninfo(database), autocommit=True) as other:
            await other.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(OperationalError):
            await enqueue(session, job_id, backbone_fingerprint=None)
        await session.invalidate()


async def test_a_job_and_its_delivery_commit_together(sessions: Sessions) -> None:
    async with sessions() as session:
        job = await store_job(session)
        assert await is_waiting(session, job.id)
        await session.rollback()
        assert await count_waiting(session) == 0
        assert (await list_jobs(session)).items == ()
        job = await store_job(session)
        await session.commit()
    async with sessions() as session:
        assert await get_job(session, job.id) == job
        assert await is_waiting(session, job.id)
    assert (job.state, job.attempts, job.progress, job.vector_id) == ("queued", 0, {}, None)
    assert job.seconds is None
    assert not job.is_final


async def test_a_worker_gets_the_job_through_the_queue(sessions: Sessions, database: str) -> None:
    taken: list[str] = []
    queue = make_queue(database)

    @queue.task(name=TRAINING_TASK, queue=TRAINING_QUEUE)
    async def train(job_id: str) -> None:
        taken.append(job_id)

    async with sessions() as session:
        job = await store_job(session)
        await session.commit()
    async with queue.open_async():
        await queue.run_worker_async(
            queues=[TRAINING_QUEUE], wait=False, install_signal_handlers=False
        )
    assert taken == [str(job.id)]
    async with sessions() as session:
        assert not await is_waiting(session, job.id)


async def test_a_job_is_delivered_at_most_once_at_a_time(session: AsyncSession) -> None:
    job = await store_job(session)
    await session.commit()
    with pytest.raises(procrastinate.exceptions.AlreadyEnqueued):
        await enqueue(session, job.id, backbone_fingerprint=None)
    await session.rollback()
    await dequeue(session, job.id)
    await dequeue(session, job.id)
    assert not await is_waiting(session, job.id)
    await enqueue(session, job.id, backbone_fingerprint=None)
    assert await count_waiting(session) == 1


async def test_a_job_runs_from_claim_to_result(sessions: Sessions) -> None:
    async with sessions() as session:
        job = await store_job(session)
        claimed, token = await claim_job(session, job.id)
        assert (claimed.state, claimed.attempts) == ("running", 1)
        assert claimed.started is not None
        progress: dict[str, JSON] = {
            "phase": "student",
            "step": 1,
            "losses": {"total": float("inf")},
        }
        assert await heartbeat(session, job.id, token, progress=progress) is False
        vectors = await store(session, "task", status="unproven")
        await finish_job(session, job.id, token, vector_id=vectors.id, report={"seconds": 2.5})
        await session.commit()
        done = await get_job(session, job.id)
        assert (done.state, done.vector_id) == ("succeeded", vectors.id)
        made = {"id": vectors.id, "name": "task", "version": 1, "status": "unproven"}
        assert done.vector == made
        assert done.report == {"seconds": 2.5}
        assert done.progress["losses"] == {"total": None}
        assert done.is_final
        assert done.seconds is not None
        assert done.seconds >= 0
        await finish_job(session, job.id, token, vector_id=vectors.id)
        assert await get_job(session, job.id) == done
        events = await events_of(session, job.id)
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert [event.kind for event in events] == ["state", "state", "progress", "state"]
    assert events[2].data["step"] == 1
    assert events[3].data == {"state": "succeeded", "vector_id": str(vectors.id)}


async def test_events_continue_after_the_last_one_seen(session: AsyncSession) -> None:
    job = await store_job(session)
    _, token = await claim_job(session, job.id)
    for step in range(5):
        await heartbeat(session, job.id, token, progress={"step": step})
    later = await events_of(session, job.id, after=3)
    assert [event.data["step"] for event in later] == [1, 2, 3, 4]
    assert await events_of(session, job.id, after=100) == []


async def test_the_news_of_many_jobs_are_read_at_once(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, ended = [await store_job(session) for _ in range(3)]
    await request_cancel(session, ended.id)
    _, token = await claim_job(session, second.id)
    await heartbeat(session, second.id, token, progress={"step": 7})
    positions = {first.id: 1, second.id: 1, ended.id: 0, some_id(): 4}
    found = await new_events(session, positions)

    def told(job_id: uuid.UUID) -> tuple[list[int], bool]:
        events, is_over = found[job_id]
        return [event.sequence for event in events], is_over

    assert told(first.id) == ([], False)
    assert told(second.id) == ([2, 3], False)
    assert told(ended.id) == ([1, 2], True)
    assert told(some_id()) == ([], True)
    monkeypatch.setattr(library_jobs, "MAX_NEW_EVENTS", 1)
    found = await new_events(session, positions)
    assert told(second.id) == ([2], False)
    assert told(ended.id) == ([1], False)


async def test_jobs_are_counted_by_state(session: AsyncSession) -> None:
    none = dict.fromkeys(("queued", "running", "succeeded", "failed", "cancelled"), 0)
    assert await count_jobs(session) == none
    first, *_ = [await store_job(session) for _ in range(3)]
    await request_cancel(session, first.id)
    assert await count_jobs(session) == {**none, "queued": 2, "cancelled": 1}


async def test_a_waiting_job_is_cancelled_at_once(session: AsyncSession) -> None:
    job = await store_job(session)
    cancelled = await request_cancel(session, job.id)
    assert cancelled.state == "cancelled"
    assert cancelled.finished is not None
    assert await count_waiting(session) == 0
    assert (await request_cancel(session, job.id)).state == "cancelled"
    with pytest.raises(ConflictError):
        await claim_job(session, job.id)


async def test_a_running_job_is_asked_to_stop(session: AsyncSession) -> None:
    job = await store_job(session)
    _, token = await claim_job(session, job.id)
    for _ in range(2):
        asked = await request_cancel(session, job.id)
        assert (asked.state, asked.cancel_requested) == ("running", True)
    assert await heartbeat(session, job.id, token) is True
    assert await heartbeat(session, job.id, token, progress={}) is True
    await release_job(session, job.id, token)
    assert (await get_job(session, job.id)).state == "cancelled"
    deeds = [deed.action for deed in await list_audit(session, subject=str(job.id))]
    assert deeds == ["job.create", "job.cancel", "job.cancelled"]


async def test_a_cancelled_job_whose_worker_died_ends(session: AsyncSession) -> None:
    job = await store_job(session)
    await claim_job(session, job.id)
    await request_cancel(session, job.id)
    await silence(session, job, seconds=100)
    assert await requeue_stalled(session, older_than_seconds=60) == []
    assert (await get_job(session, job.id)).state == "cancelled"


async def test_a_result_beats_a_late_wish_to_cancel(session: AsyncSession) -> None:
    job = await store_job(session)
    _, token = await claim_job(session, job.id)
    await request_cancel(session, job.id)
    vectors = await store(session)
    await finish_job(session, job.id, token, vector_id=vectors.id)
    assert (await get_job(session, job.id)).state == "succeeded"
    with pytest.raises(ConflictError):
        await request_cancel(session, job.id)


async def test_a_job_needs_a_name_and_a_data_set(session: AsyncSession) -> None:
    with pytest.raises(NotFoundError):
        await enqueue_training(session, name="task", dataset_id=some_id(), config={})
    dataset = await store_dataset(session)
    with pytest.raises(InvalidInputError):
        await enqueue_training(session, name="Bad Name", dataset_id=dataset.id, config={})


async def test_what_does_not_exist_is_not_found(session: AsyncSession) -> None:
    for ask in (get_job, claim_job, request_cancel):
        with pytest.raises(NotFoundError):
            await ask(session, some_id())


async def test_jobs_are_listed_newest_first_in_pages(session: AsyncSession) -> None:
    jobs = [await store_job(session, f"task-{number}") for number in range(3)]
    await claim_job(session, jobs[1].id)
    page = await list_jobs(session, limit=2)
    assert [job.id for job in page.items] == [jobs[2].id, jobs[1].id]
    rest = await list_jobs(session, limit=2, cursor=page.next_cursor)
    assert [job.id for job in rest.items] == [jobs[0].id]
    assert rest.next_cursor is None
    running = await list_jobs(session, state="running")
    assert [job.id for job in running.items] == [jobs[1].id]


async def test_progress_goes_thirty_days_after_its_job_has_ended(session: AsyncSession) -> None:
    old, new, running = [(await store_job(session)).id for _ in range(3)]
    for job_id in (old, new, running):
        progress: dict[str, JSON] = {"phase": "student", "step": 1}
        await library_jobs.append_event(session, job_id, kind="progress", data=progress)
    for job_id, days in ((old, 31), (new, 29)):
        await request_cancel(session, job_id)
        ended = text("UPDATE training_jobs SET finished = now() - make_interval(days => :d)")
        await session.execute(text(f"{ended} WHERE id = :id"), {"d": days, "id": job_id})
    await forget_progress(session)
    kinds = [[event.kind for event in await events_of(session, one)] for one in (old, new, running)]
    whole = ["state", "progress"]
    assert kinds == [["state", "state"], [*whole, "state"], whole]
    assert (await new_events(session, {old: 0}))[old][1]


async def test_old_progress_goes_however_much_it_is(database: str, sessions: Sessions) -> None:
    async with sessions.begin() as session:
        job = await store_job(session)
        await request_cancel(session, job.id)
        await session.execute(
            text("UPDATE training_jobs SET finished = now() - interval '31 days'")
        )
        many = "SELECT :id, n, 'progress', '{}' FROM generate_series(10, 30000) n"
        insert = f"INSERT INTO job_events (job_id, sequence, kind, data) {many}"
        await session.execute(text(insert), {"id": job.id})
    engine = make_engine(database, statement_timeout_seconds=0.02)
    async with session_factory(engine).begin() as session:
        await forget_progress(session)
    await engine.dispose()
    async with sessions() as session:
        assert {event.kind for event in await events_of(session, job.id)} == {"state"}
