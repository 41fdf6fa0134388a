"""Which backbone a job is for, where workers train several."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.core.settings import Settings
from app.main import create_app
from tests.fakes.api_calls import train
from tests.fakes.library import store_dataset
from tests.fakes.servers.worker import FakeWorker, backbone, client_of
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio
B = "b" * 64


@dataclass
class Queued:
    """Posts a job, and looks where it waits."""

    sessions: Sessions

    async def queue_of(self, response: httpx.Response) -> str:
        assert response.status_code == 202, response.text
        query = "SELECT queue_name FROM procrastinate_jobs WHERE args ->> 'job_id' = :id"
        async with self.sessions() as session:
            name = await session.scalar(text(query), {"id": str(uuid.UUID(response.json()["id"]))})
        return str(name)


@pytest.fixture
async def queued(sessions: Sessions) -> Queued:
    async with sessions.begin() as session:
        await store_dataset(session, "d")
    return Queued(sessions)


class TestOneBackbone:
    async def test_nobody_has_to_name_it(self, http: httpx.AsyncClient, queued: Queued) -> None:
        assert await queued.queue_of(await train(http)) == "training"
        for name in ("fake-a", "a" * 64):
            named = await queued.queue_of(await train(http, backbone=name))
            assert named == f"training:{'a' * 16}"

    async def test_another_is_refused(self, http: httpx.AsyncClient, queued: Queued) -> None:
        refused = await train(http, backbone="fake-b")
        assert refused.json()["code"] == "incompatible-backbone"
        assert refused.json()["details"] == {"wanted": ["fake-a"], "found": "fake-b"}
        await store_vector(queued.sessions, backbone("b"), name="gears")
        refused = await http.post("/evaluations", json={"vector": "gears", "dataset": "d"})
        assert refused.json()["code"] == "incompatible-backbone"

    async def test_jobs_wait_for_workers_that_are_not_up(
        self, http: httpx.AsyncClient, worker: FakeWorker, queued: Queued
    ) -> None:
        worker.status = "draining"
        assert await queued.queue_of(await train(http)) == "training"
        await store_vector(queued.sessions, backbone("b"), name="gears")
        asked = {"vector": "gears", "dataset": "d"}
        waiting = await queued.queue_of(await http.post("/evaluations", json=asked))
        assert waiting == f"training:{B[:16]}"
        refused = await train(http, backbone="fake-a")
        assert (refused.status_code, refused.json()["code"]) == (503, "worker-unavailable")

    async def test_a_job_tells_what_it_waits_for(
        self, http: httpx.AsyncClient, worker: FakeWorker, queued: Queued
    ) -> None:
        await store_vector(queued.sessions, backbone("b"), name="gears")
        worker.status = "draining"
        free = (await train(http)).json()
        asked = {"vector": "gears", "dataset": "d"}
        bound = (await http.post("/evaluations", json=asked)).json()
        ended = (await train(http)).json()
        cancelled = await http.post(f"/train/{ended['id']}/cancel")
        assert cancelled.json()["waits_for"] is None
        expected = [
            None,
            "a worker that trains the backbone bbbbbbbbbbbb; none is ready",
            "a worker that trains; none is ready",
        ]
        assert [bound["waits_for"], free["waits_for"]] == expected[1:]
        listed = (await http.get("/train")).json()["items"]
        assert [one["waits_for"] for one in listed] == expected
        for job in (free, bound):
            found = (await http.get(f"/train/{job['id']}")).json()
            assert found["waits_for"] == job["waits_for"]

    @pytest.mark.usefixtures("queued")
    async def test_a_job_that_a_worker_may_take_waits_for_nothing(
        self, http: httpx.AsyncClient
    ) -> None:
        made = await train(http, backbone="fake-a")
        for told in (made, await http.get(made.headers["location"]), await train(http)):
            assert (told.json()["state"], told.json()["waits_for"]) == ("queued", None)

    async def test_a_worker_that_only_serves_trains_nothing(
        self, http: httpx.AsyncClient, worker: FakeWorker, queued: Queued
    ) -> None:
        worker.role = "serve"
        assert await queued.queue_of(await train(http)) == "training"
        assert (await train(http, backbone="fake-a")).status_code == 503


class TestSeveral:
    @pytest.fixture
    def other(self) -> FakeWorker:
        return FakeWorker(description=backbone("b"), role="train")

    @pytest.fixture
    async def api(
        self, settings: Settings, worker: FakeWorker, other: FakeWorker
    ) -> AsyncIterator[FastAPI]:
        workers = client_of({"http://one": worker, "http://two": other})
        app = create_app(settings, workers=workers)
        async with app.router.lifespan_context(app):
            yield app

    async def test_without_a_name_the_ambiguity_is_refused(
        self, http: httpx.AsyncClient, queued: Queued
    ) -> None:
        refused = await train(http)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-input")
        assert refused.json()["details"]["wanted"] == {"a" * 64: "fake-a", B: "fake-b"}
        assert (await http.get("/train")).json()["items"] == []
        assert await queued.queue_of(await train(http, backbone="fake-b")) == f"training:{B[:16]}"

    async def test_the_vector_tells_which_is_meant(
        self, http: httpx.AsyncClient, worker: FakeWorker, *, other: FakeWorker, queued: Queued
    ) -> None:
        for seed, one in enumerate([worker, other]):
            name = one.description.name
            await store_vector(queued.sessions, one.description, name=name, seed=seed)
            asked = {"vector": name, "dataset": "d"}
            found = await queued.queue_of(await http.post("/evaluations", json=asked))
            assert found == f"training:{one.description.fingerprint[:16]}"
