"""Requests with an Idempotency-Key are done once, whatever they make."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.api.maintenance import forget_old
from app.core.settings import Settings
from app.library.access.access_keys import create_access_key
from app.library.access.idempotency import RequestKey, StoredAnswer, find_answer, store_answer
from tests.fakes.api_calls import OCTETS, parquet
from tests.fakes.library import store
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.vectors import make_vector_file

pytestmark = pytest.mark.anyio

Sessions = async_sessionmaker[AsyncSession]
TABLES = ("vectors", "datasets", "training_jobs", "evaluations", "access_keys")
MEASURED = {"dataset": "d", "split": "test", "scorer": "exact", "items": 4}


@pytest.fixture
async def makers(
    http: httpx.AsyncClient, *, sessions: Sessions, worker: FakeWorker, tmp_path: Path
) -> dict[str, dict[str, Any]]:
    """A request for each route that makes something, with what another one would be."""
    backbone = worker.description
    async with sessions.begin() as session:
        for name in ("gears", "rings"):
            await store(session, name, seed=len(name) + ord(name[0]), backbone=backbone)
    content = parquet(tmp_path)
    await http.post("/datasets", params={"name": "d"}, content=content, headers=OCTETS)
    parts = [{"vector": "gears", "weight": 1}, {"vector": "rings", "weight": 1}]
    share = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    return {
        "/train": {"json": {"name": "new", "dataset": "d"}},
        "/vectors/combine": {"json": {"name": "sum", "parts": parts}},
        "/vectors/gears/evaluations": {"json": {**MEASURED, **share}},
        "/vectors?name=file": {
            "content": make_vector_file(5, backbone=backbone),
            "headers": OCTETS,
        },
        "/datasets?name=other": {"content": parquet(tmp_path, items=4), "headers": OCTETS},
    }


async def count(sessions: Sessions) -> dict[str, int]:
    async with sessions() as session:
        return {
            table: await session.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608
            for table in TABLES
        }


async def ask(
    http: httpx.AsyncClient, path: str, given: dict[str, Any], *, key: str
) -> httpx.Response:
    headers = {**given.get("headers", {}), "idempotency-key": key}
    return await http.post(path, **{**given, "headers": headers})


async def test_every_route_that_makes_something_answers_a_repeated_request_as_before(
    http: httpx.AsyncClient, sessions: Sessions, makers: dict[str, dict[str, Any]]
) -> None:
    for path, given in makers.items():
        first = await ask(http, path, given, key=path)
        assert first.status_code in {201, 202}, (path, first.text)
        assert "idempotency-replayed" not in first.headers
        before = await count(sessions)
        again = await ask(http, path, given, key=path)
        assert (again.status_code, again.json()) == (first.status_code, first.json()), path
        assert again.headers.get("location") == first.headers.get("location")
        assert again.headers["idempotency-replayed"] == "true"
        assert await count(sessions) == before, path


async def test_a_key_is_for_one_request_only(
    http: httpx.AsyncClient, sessions: Sessions, makers: dict[str, dict[str, Any]]
) -> None:
    for path, given in makers.items():
        assert (await ask(http, path, given, key="one")).status_code in {201, 202, 422}
    before = await count(sessions)
    others = [
        ("/train", {"json": {"name": "new", "dataset": "d", "shots": 3}}),
        ("/vectors/combine", makers["/vectors/combine"]),
        ("/vectors?name=elsewhere", makers["/vectors?name=file"]),
    ]
    for path, given in others:
        refused = await ask(http, path, given, key="one")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-input"), path
        assert "used for another request" in refused.json()["detail"]
    assert await count(sessions) == before


async def test_of_fifty_equal_requests_one_is_done(
    http: httpx.AsyncClient, sessions: Sessions, makers: dict[str, dict[str, Any]]
) -> None:
    given = makers["/train"]
    answers = await asyncio.gather(*(ask(http, "/train", given, key="k") for _ in range(50)))
    done = [answer for answer in answers if answer.status_code == 202]
    told = [answer for answer in answers if answer.status_code != 202]
    assert len({answer.json()["id"] for answer in done}) == 1
    assert {(one.status_code, one.json()["code"]) for one in told} <= {(409, "in-progress")}
    assert {one.headers["retry-after"] for one in told} <= {"1"}
    assert (await count(sessions))["training_jobs"] == 1
    assert (await ask(http, "/train", given, key="k")).json() == done[0].json()


@pytest.mark.parametrize(
    ("path", "asked", "gone"),
    [
        ("/vectors/bolts/prune", {"keep_last": 2}, 1),
        ("/vectors/batch", {"action": "delete", "vectors": ["bolts"]}, 3),
    ],
)
async def test_a_repeated_deletion_spares_what_is_there_by_then(
    http: httpx.AsyncClient,
    *,
    sessions: Sessions,
    worker: FakeWorker,
    path: str,
    asked: dict[str, Any],
    gone: int,
) -> None:
    async def store_more(*seeds: int) -> None:
        async with sessions.begin() as session:
            for seed in seeds:
                await store(session, "bolts", seed=seed, backbone=worker.description)

    await store_more(1, 2, 3)
    first = await ask(http, path, {"json": asked}, key="k")
    assert [item["version"] for item in first.json()["items"]] == [gone]
    await store_more(4)
    again = await ask(http, path, {"json": asked}, key="k")
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    kept = (await http.get("/vectors", params={"name": "bolts"})).json()["items"]
    assert [item["version"] for item in kept] == [
        version for version in (4, 3, 2, 1) if version != gone
    ]


async def test_a_refused_request_leaves_its_key_free(
    http: httpx.AsyncClient, makers: dict[str, dict[str, Any]]
) -> None:
    missing = {"json": {"name": "new", "dataset": "nobody"}}
    assert (await ask(http, "/train", missing, key="k")).status_code == 404
    assert (await ask(http, "/train", makers["/train"], key="k")).status_code == 202


async def test_a_key_is_free_again_after_a_day(
    http: httpx.AsyncClient, sessions: Sessions, makers: dict[str, dict[str, Any]]
) -> None:
    first = await ask(http, "/train", makers["/train"], key="k")
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE answered_requests SET created = created - interval '25 hours'")
        )
    other = await ask(http, "/train", {"json": {"name": "other", "dataset": "d"}}, key="k")
    assert other.status_code == 202
    assert other.json()["id"] != first.json()["id"]


async def test_no_request_waits_for_another_that_found_old_answers(sessions: Sessions) -> None:
    keys = [RequestKey(owner="o", text=name, digest=b"d" * 32) for name in ("old", "a", "b")]
    async with sessions.begin() as session:
        await store_answer(session, keys[0], StoredAnswer(status=202, location=None, body={}))
        await session.execute(
            text("UPDATE answered_requests SET created = created - interval '25 hours'")
        )
    async with sessions() as one, sessions() as other:
        assert await find_answer(one, keys[1]) is None
        await other.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert await find_answer(other, keys[2]) is None


async def test_answers_to_whoever_comes_no_more_are_forgotten_as_well(
    http: httpx.AsyncClient, *, api: FastAPI, sessions: Sessions, makers: dict[str, dict[str, Any]]
) -> None:
    for key in ("old", "new"):
        await ask(http, "/train", makers["/train"], key=key)
    async with sessions.begin() as session:
        await session.execute(
            text(
                "UPDATE answered_requests SET created = created - interval '25 hours', "
                "owner = 'gone' WHERE text = 'old'"
            )
        )
    await forget_old(api.state.services)
    async with sessions() as session:
        left = await session.scalars(text("SELECT text FROM answered_requests"))
        assert list(left) == ["new"]


async def test_what_is_no_key_is_refused(
    http: httpx.AsyncClient, makers: dict[str, dict[str, Any]]
) -> None:
    for key in ("a b", "", "x" * 129):
        assert (await ask(http, "/train", makers["/train"], key=key)).status_code == 422


class TestOwners:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"require_keys": True})

    async def test_equal_keys_of_two_callers_are_two_requests(
        self, http: httpx.AsyncClient, sessions: Sessions
    ) -> None:
        made = []
        for _ in range(2):
            async with sessions.begin() as session:
                _, token = await create_access_key(session, name="x", scopes=["admin"])
            headers = {"authorization": f"Bearer {token.text}"}
            given = {"json": {"name": "made", "scopes": ["read"]}, "headers": headers}
            made.append((await ask(http, "/keys", given, key="same")).json())
            again = await ask(http, "/keys", given, key="same")
            # Its secret is stored nowhere, so it cannot be told again.
            assert (again.status_code, again.json()["code"]) == (409, "conflict")
            assert "shown only once" in again.json()["detail"]
        assert made[0]["id"] != made[1]["id"]
        async with sessions() as session:
            rows = await session.scalars(text("SELECT t::text FROM answered_requests t"))
            assert not any(one["key"].split("_", 2)[2] in row for row in rows for one in made)
