import asyncio
import uuid
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.event import listen
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.http.job_events import JobEvents
from app.api.maintenance import requeue_stalled_jobs
from app.library.training.queue import dequeue
from tests.fakes.api_calls import parquet, train, upload
from tests.fakes.library import store_dataset
from tests.fakes.training import Sessions, begin, cancel, fail, report

pytestmark = pytest.mark.anyio

BAD_TRAINING: list[dict[str, object]] = [
    {"config": {"epochs": 0}},
    {"config": {"epochs": 1.5}},
    {"config": {"epochs": True}},
    {"config": {"epochs": 10**12}},
    {"config": {"nonsense": 1}},
    {"config": {"shots": 3}},
    {"config": {"keep": "worst"}},
    {"config": {"Bad Key": 1}},
    {"config": {"instruction": ["x"]}},
    {"config": {f"k{n}": 1 for n in range(65)}},
    {"shots": 0},
    {"shots": 65},
    {"name": "UPPER"},
    {"name": "auto"},
    {"tags": ["x"] * 33},
    {"tags": ["a\u0000"]},
    {"description": "x" * 10_001},
]


async def add_dataset(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await store_dataset(session, "d")


class TestTraining:
    async def test_a_job_is_queued_with_its_settings(
        self, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        dataset = (await upload(http, parquet(tmp_path))).json()
        response = await train(http, shots=4, config={"epochs": 2, "seed": 7}, tags=["x"])
        assert response.status_code == 202
        body = response.json()
        assert response.headers["location"] == f"/train/{body['id']}"
        assert (body["state"], body["dataset_id"]) == ("queued", dataset["id"])
        assert body["config"] == {"epochs": 2, "seed": 7, "shots": 4}
        assert (body["progress"], body["vector"], body["error"]) == (None, None, None)
        assert (await http.get(f"/train/{body['id']}")).json() == body
        assert (await http.get("/train", params={"state": "queued"})).json()["items"] == [body]
        assert (await http.get("/train", params={"state": "failed"})).json()["items"] == []

    async def test_settings_out_of_bounds_are_refused(
        self, http: httpx.AsyncClient, sessions: Sessions
    ) -> None:
        await add_dataset(sessions)
        for body in BAD_TRAINING:
            response = await train(http, **body)
            assert (response.status_code, response.json()["code"]) == (422, "invalid-input"), body
        assert (await http.get("/train")).json()["items"] == []

    async def test_an_unknown_data_set_is_404(self, http: httpx.AsyncClient) -> None:
        assert (await train(http, dataset="nobody")).status_code == 404

    async def test_a_waiting_job_is_cancelled_at_once(
        self, http: httpx.AsyncClient, sessions: Sessions
    ) -> None:
        await add_dataset(sessions)
        job = (await train(http)).json()
        for _ in range(2):
            cancelled = await http.post(f"/train/{job['id']}/cancel")
            assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")

    async def test_a_job_whose_worker_fell_silent_waits_again(
        self, api: FastAPI, http: httpx.AsyncClient, *, sessions: Sessions
    ) -> None:
        await add_dataset(sessions)
        job_id = uuid.UUID((await train(http)).json()["id"])
        async with sessions() as session, session.begin():
            await dequeue(session, job_id)
        await begin(sessions, job_id)
        services = api.state.services
        eager = services.settings.model_copy(update={"job_stalled_seconds": 0.0})
        await requeue_stalled_jobs(replace(services, settings=eager))
        body = (await http.get(f"/train/{job_id}")).json()
        assert (body["state"], body["attempts"]) == ("queued", 1)

    async def test_a_failed_job_says_why_and_cannot_be_cancelled(
        self, http: httpx.AsyncClient, sessions: Sessions
    ) -> None:
        await add_dataset(sessions)
        job_id = uuid.UUID((await train(http)).json()["id"])
        await fail(sessions, job_id, code="invalid-dataset", message="too few items")
        body = (await http.get(f"/train/{job_id}")).json()
        assert body["error"] == {"code": "invalid-dataset", "message": "too few items"}
        assert body["seconds"] >= 0
        assert (await http.post(f"/train/{job_id}/cancel")).status_code == 409

    @pytest.mark.parametrize("path", ["", "/events", "/cancel"])
    async def test_an_unknown_job_is_404(self, http: httpx.AsyncClient, path: str) -> None:
        method = "POST" if path == "/cancel" else "GET"
        response = await http.request(method, f"/train/{uuid.UUID(int=3)}{path}")
        assert (response.status_code, response.json()["code"]) == (404, "not-found")
        assert (await http.get("/train/not-an-id")).status_code == 404
        refused = await http.get("/train/combine")
        assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, POST")

    async def test_events_are_replayed_from_where_the_client_stands(
        self, http: httpx.AsyncClient, sessions: Sessions
    ) -> None:
        await add_dataset(sessions)
        job_id = uuid.UUID((await train(http)).json()["id"])
        token = await begin(sessions, job_id)
        for step in range(3):
            await report(sessions, job_id, token, step=step)
        listening = asyncio.create_task(http.get(f"/train/{job_id}/events"))
        await asyncio.sleep(0.1)
        await http.post(f"/train/{job_id}/cancel")
        assert await report(sessions, job_id, token, step=3)
        await cancel(sessions, job_id, token)
        full = await listening
        assert full.headers["content-type"].startswith("text/event-stream")
        assert ids(full.text) == [1, 2, 3, 4, 5, 6, 7]
        assert '"state": "cancelled"' in full.text
        assert "NaN" not in full.text
        rest = await http.get(f"/train/{job_id}/events", headers={"last-event-id": "5"})
        assert ids(rest.text) == [6, 7]
        nothing = await http.get(f"/train/{job_id}/events", headers={"last-event-id": "7"})
        assert ids(nothing.text) == []
        for bad in ("x", "-1", str(2**63)):
            response = await http.get(f"/train/{job_id}/events", headers={"last-event-id": bad})
            assert response.status_code == 422

    async def test_any_number_of_streams_need_one_connection(
        self, api: FastAPI, http: httpx.AsyncClient, *, sessions: Sessions
    ) -> None:
        await add_dataset(sessions)
        jobs = [uuid.UUID((await train(http)).json()["id"]) for _ in range(3)]
        services = api.state.services
        pool = sessions.kw["bind"].pool
        most = 0

        def count(*_: object) -> None:
            nonlocal most
            most = max(most, pool.checkedout())

        listen(pool, "checkout", count)
        events = JobEvents(sessions, poll_seconds=0.01)

        async def follow(job_id: uuid.UUID, *, after: int) -> list[str | None]:
            return [event.id async for event in events.stream(job_id, after=after)]

        following = [
            asyncio.create_task(follow(jobs[number % 3], after=number % 2)) for number in range(60)
        ]
        await asyncio.sleep(0.1)
        for job_id in jobs:
            await http.post(f"/train/{job_id}/cancel")
        told = await asyncio.gather(*following)
        assert [ids[1:] for ids in told] == [["1", "2"], ["2"]] * 30
        assert most == 1
        await events.stop()
        assert services.job_events is not events

    async def test_a_stream_of_a_job_that_waits_is_never_silent_for_long(
        self, http: httpx.AsyncClient, sessions: Sessions
    ) -> None:
        await add_dataset(sessions)
        job_id = uuid.UUID((await train(http)).json()["id"])
        events = JobEvents(sessions, poll_seconds=0.01)
        async with aclosing(events.stream(job_id, after=1, silence_seconds=0.02)) as stream:
            told = [await anext(stream) for _ in range(3)]
            assert [event.comment for event in told] == ["events", "ping", "ping"]
            await http.post(f"/train/{job_id}/cancel")
            assert [event.id async for event in stream if event.comment is None] == ["2"]
        await events.stop()

    @pytest.mark.parametrize("failure", [ConnectionRefusedError, ValueError])
    async def test_a_stream_outlives_a_look_that_fails(
        self, http: httpx.AsyncClient, sessions: Sessions, failure: type[Exception]
    ) -> None:
        await add_dataset(sessions)
        job_id = uuid.UUID((await train(http)).json()["id"])

        class Failing:
            calls = 0

            def __call__(self) -> AsyncSession:
                Failing.calls += 1
                if Failing.calls < 3:
                    raise failure
                return sessions()

        events = JobEvents(Failing(), poll_seconds=0.01)  # type: ignore[arg-type]  # a factory is all it needs
        stream = events.stream(job_id)
        assert (await anext(stream)).comment == "events"
        assert (await anext(stream)).id == "1"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await events.stop()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def ids(text: str) -> list[int]:
    return [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
