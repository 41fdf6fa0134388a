"""How often a steered request takes a connection, and that it has none while a worker works."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Pool, event
from sqlalchemy.pool import ConnectionPoolEntry

from app.core.settings import Settings
from app.library.workspaces import in_workspace
from app.main import create_app
from tests.fakes.api_calls import OCTETS, parquet
from tests.fakes.servers.streams import events_in
from tests.fakes.servers.worker import FakeWorker, backbone, client_of, embedding_of
from tests.fakes.tenants import key_headers
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "q"}]
BESIDE = {"retrieval epochs", "maintenance"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    values = settings.model_dump() | {"policy_vectors": "safety@1=0.5", "require_keys": True}
    return Settings.model_validate(values)


@pytest.fixture
def twin(worker: FakeWorker) -> FakeWorker:
    """A worker whose other backbone bears the same name."""
    return FakeWorker(description=replace(backbone("b"), name=worker.description.name))


@pytest.fixture
async def api(settings: Settings, worker: FakeWorker, twin: FakeWorker) -> AsyncIterator[FastAPI]:
    app = create_app(settings, workers=client_of({"http://one": worker, "http://two": twin}))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def http(
    api: FastAPI, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of a workspace other than the policy's, whose key is known already."""
    monkeypatch.setattr("app.api.http.access.REMEMBERED_SECONDS", 3600.0)
    headers = await key_headers(sessions, "other")
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        assert (await client.get("/backbones")).status_code == 200
        yield client


@contextmanager
def noted(*workers: FakeWorker) -> Iterator[list[str]]:
    """What happens in order: `begin` and `end` of a request's connections, and `worker`."""
    happened: list[str] = []

    def begin(_driver: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        task = asyncio.current_task()
        if task is None or task.get_name() not in BESIDE:
            record.info["noted"] = True
            happened.append("begin")

    def end(_driver: object, record: ConnectionPoolEntry) -> None:
        if record.info.pop("noted", False):
            happened.append("end")

    class Calls(list[Any]):
        def append(self, item: object) -> None:
            happened.append("worker")
            super().append(item)

    for worker in workers:
        worker.generated, worker.embedded = Calls(), Calls()
    event.listen(Pool, "checkout", begin)
    event.listen(Pool, "checkin", end)
    try:
        yield happened
    finally:
        event.remove(Pool, "checkout", begin)
        event.remove(Pool, "checkin", end)


async def test_what_a_request_names_is_read_in_one_session_before_the_worker_is_asked(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    twin: FakeWorker,
    sessions: Sessions,
    tmp_path: Path,
) -> None:
    own = in_workspace(sessions, "other")
    await store_vector(sessions, worker.description, name="safety")
    for seed, name in enumerate(("a", "b")):
        await store_vector(own, worker.description, name=name, seed=2 + seed)
    stored = await http.post(
        "/datasets", params={"name": "d"}, content=parquet(tmp_path), headers=OCTETS
    )
    assert stored.status_code == 201
    vectors = ["a", {"ref": "b", "strength": 0.5}]
    steered = {"vector": vectors, "demonstrations": {"dataset": "d", "shots": 1}}
    chat = {"model": worker.description.name, "messages": MESSAGES}
    for path, body in (
        ("/steer/generate", {"prompt": "q", **steered}),
        ("/v1/chat/completions", {**chat, "vlibrary": steered}),
        # The vector tells which of two backbones of one name is meant.
        ("/v1/chat/completions", {**chat, "model": f"{chat['model']}:a"}),
    ):
        for stream in (False, True):
            with noted(worker, twin) as happened:
                answer = await http.post(path, json={**body, "stream": stream})
            assert answer.status_code == 200
            assert "error" not in [kind for kind, _ in events_in(answer.content)]
            assert happened == ["begin", "end", "worker"]


async def test_a_found_vector_takes_no_transaction_while_a_worker_embeds_or_generates(
    http: httpx.AsyncClient, worker: FakeWorker, *, twin: FakeWorker, sessions: Sessions
) -> None:
    await store_vector(sessions, worker.description, name="safety")
    own = in_workspace(sessions, "other")
    key = embedding_of(None, "q")
    await store_vector(own, worker.description, name="found", seed=2, key=key)
    body = {"prompt": "q", "vector": "auto", "backbone": worker.description.fingerprint}
    assert (await http.post("/steer/generate", json=body)).json()["retrieval"]["abstained"] is False
    with noted(worker, twin) as happened:
        answer = (await http.post("/steer/generate", json=body)).json()
    assert [use["name"] for use in answer["applied"]] == ["found", "safety"]
    # What the policy wants, and what retrieval found.
    assert happened == ["begin", "end", "worker", "begin", "end", "worker"]


async def test_what_names_nothing_needs_no_database(
    worker: FakeWorker, tmp_path: Path, database: str
) -> None:
    settings = Settings.model_validate({"database_url": database, "data_dir": tmp_path})
    api = create_app(settings, workers=worker.client())
    transport = httpx.ASGITransport(app=api)
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        with noted(worker) as happened:
            answer = await client.post("/steer/generate", json={"prompt": "q"})
    assert (answer.status_code, happened) == (200, ["worker"])
