"""What a key may fill, refused in words with the limit and what was found."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.access import Quotas
from app.core.settings import Settings
from app.library.catalogue.combination import combine_vectors
from app.library.records import VectorRecord
from app.library.storage import ObjectStore
from tests.fakes.api_calls import OCTETS, parquet
from tests.fakes.files.uploads import unfolding
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.tenants import key_headers
from tests.fakes.training import Sessions, vector_file
from tests.fakes.waiting import SECONDS

pytestmark = pytest.mark.anyio


async def bring(
    http: httpx.AsyncClient, headers: dict[str, str], blob: bytes, **more: str
) -> httpx.Response:
    return await http.post("/vectors?name=v", content=blob, headers=headers | OCTETS | more)


async def test_vectors_are_limited(
    http: httpx.AsyncClient, *, sessions: Sessions, worker: FakeWorker, tmp_path: Path
) -> None:
    free = await key_headers(sessions)
    limited = await key_headers(sessions, quotas=Quotas(vectors=1))
    first, second = (vector_file(worker.description, seed=seed) for seed in (1, 2))
    once = {"idempotency-key": "k"}
    assert (await bring(http, limited, first, **once)).status_code == 201
    refused = await bring(http, limited, second)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota-exceeded")
    assert refused.json()["details"] == {"quota": "vectors", "limit": 1, "found": 2}
    assert "at most 1 vectors" in refused.json()["detail"]
    assert "found 2" in refused.json()["detail"]
    # What is stored already is told again, and whoever has no limit goes on.
    assert (await bring(http, limited, first, **once)).status_code == 201
    assert (await bring(http, limited, first)).status_code == 200
    content = parquet(tmp_path)
    made = await http.post("/datasets?name=d", content=content, headers=limited | OCTETS)
    assert made.status_code == 201
    # A training is going to make one.
    asked: dict[str, Any] = {"json": {"name": "v", "dataset": "d"}}
    assert (await http.post("/train", **asked, headers=limited)).status_code == 403
    assert (await http.get("/train", headers=free)).json()["items"] == []
    assert (await bring(http, free, second)).status_code == 201


async def test_a_measurement_makes_no_vector(
    http: httpx.AsyncClient, *, sessions: Sessions, worker: FakeWorker, tmp_path: Path
) -> None:
    limited = await key_headers(sessions, quotas=Quotas(vectors=1))
    blob = vector_file(worker.description, seed=1)
    assert (await bring(http, limited, blob)).status_code == 201
    content = parquet(tmp_path)
    await http.post("/datasets?name=d", content=content, headers=limited | OCTETS)
    asked: dict[str, Any] = {"json": {"vector": "v", "dataset": "d"}, "headers": limited}
    assert (await http.post("/evaluations", **asked)).status_code == 202


async def test_what_adds_nothing_is_refused_by_no_limit(
    http: httpx.AsyncClient, *, sessions: Sessions, worker: FakeWorker, tmp_path: Path
) -> None:
    free = await key_headers(sessions)
    limited = await key_headers(sessions, quotas=Quotas(vectors=1))
    blobs = [vector_file(worker.description, seed=seed) for seed in (1, 2)]
    for blob in blobs:
        assert (await bring(http, free, blob)).status_code == 201
    # Others have filled the workspace beyond what this key may.
    assert (await bring(http, limited, blobs[0])).status_code == 200
    content = parquet(tmp_path)
    made = await http.post("/datasets?name=d", content=content, headers=limited | OCTETS)
    assert made.status_code == 201
    key = {"name": "k", "scopes": ["read"]}
    assert (await http.post("/keys", json=key, headers=limited)).status_code == 201
    more = await bring(http, limited, vector_file(worker.description, seed=3))
    assert (more.status_code, more.json()["details"]["found"]) == (403, 3)


async def test_a_data_set_that_is_stored_is_told_again_to_whoever_may_store_less(
    http: httpx.AsyncClient, sessions: Sessions, tmp_path: Path
) -> None:
    content = unfolding(tmp_path, side=220, count=100).read_bytes()
    limited = await key_headers(sessions, quotas=Quotas(bytes=1000))
    for headers, status in ((limited, 403), (await key_headers(sessions), 201), (limited, 200)):
        reply = await http.post("/datasets?name=d", content=content, headers=headers | OCTETS)
        assert reply.status_code == status


async def test_unfinished_jobs_are_limited(
    http: httpx.AsyncClient, *, sessions: Sessions, tmp_path: Path
) -> None:
    headers = await key_headers(sessions, quotas=Quotas(jobs=1))
    await http.post("/datasets?name=d", content=parquet(tmp_path), headers=headers | OCTETS)
    asked: dict[str, Any] = {"json": {"name": "v", "dataset": "d"}, "headers": headers}
    job = (await http.post("/train", **asked)).json()
    refused = await http.post("/train", **asked)
    assert (refused.status_code, refused.json()["code"]) == (429, "busy")
    assert refused.headers["retry-after"] == "10"
    assert refused.json()["details"] == {"quota": "jobs", "limit": 1, "found": 2}
    await http.post(f"/train/{job['id']}/cancel", headers=headers)
    assert (await http.post("/train", **asked)).status_code == 202


async def test_bytes_are_limited_before_a_file_is_stored(
    http: httpx.AsyncClient,
    *,
    sessions: Sessions,
    settings: Settings,
    worker: FakeWorker,
    tmp_path: Path,
) -> None:
    blob = vector_file(worker.description, seed=1)
    headers = await key_headers(sessions, quotas=Quotas(bytes=len(blob)))
    assert (await bring(http, headers, blob)).status_code == 201
    content = parquet(tmp_path)
    for send in (
        bring(http, headers, vector_file(worker.description, seed=2)),
        http.post("/datasets?name=d", content=content, headers=headers | OCTETS),
    ):
        refused = await send
        assert (refused.status_code, refused.json()["details"]["quota"]) == (403, "bytes")
    assert await ObjectStore(settings.objects_url).keys("datasets") == {}
    await http.delete("/vectors/v", headers=headers)
    assert (await bring(http, headers, blob)).status_code == 201


@pytest.mark.parametrize("quota", [1_000_000, None])
async def test_a_small_file_fills_no_disk(
    http: httpx.AsyncClient,
    *,
    quota: int | None,
    sessions: Sessions,
    settings: Settings,
    tmp_path: Path,
) -> None:
    headers = await key_headers(sessions, quotas=Quotas(bytes=quota)) | OCTETS
    content = unfolding(tmp_path, side=220, count=1000).read_bytes()
    assert len(content) < settings.max_upload_bytes
    refused = await http.post("/datasets?name=d", content=content, headers=headers)
    if quota is None:
        assert (refused.status_code, refused.json()["code"]) == (413, "too-large")
        assert f"{16 * settings.max_upload_bytes} bytes" in refused.json()["detail"]
    else:
        assert (refused.status_code, refused.json()["code"]) == (403, "quota-exceeded")
        # No more was counted: it was not written to its end.
        assert refused.json()["details"]["found"] == quota + 1
    assert await ObjectStore(settings.objects_url).keys("datasets") == {}


async def test_no_two_pass_a_limit_together(
    http: httpx.AsyncClient, sessions: Sessions, worker: FakeWorker
) -> None:
    headers = await key_headers(sessions, quotas=Quotas(vectors=3))
    blobs = [vector_file(worker.description, seed=seed) for seed in range(8)]
    answers = await asyncio.gather(*(bring(http, headers, blob) for blob in blobs))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 5


async def test_nobody_waits_while_another_makes_something(
    http: httpx.AsyncClient,
    *,
    sessions: Sessions,
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def take_long(*given: Any, **more: Any) -> tuple[VectorRecord, bool]:  # noqa: ANN401
        begun.set()
        await released.wait()
        return await combine_vectors(*given, **more)

    monkeypatch.setattr("app.api.routes.catalogue.combine_vectors", take_long)
    headers = await key_headers(sessions, quotas=Quotas(vectors=4))
    for seed in range(2):
        await bring(http, headers, vector_file(worker.description, seed=seed))
    parts = [{"vector": f"v@{version}", "weight": 1} for version in (1, 2)]
    asked = {"name": "sum", "parts": parts}
    combining = asyncio.create_task(http.post("/vectors/combine", json=asked, headers=headers))
    await asyncio.wait_for(begun.wait(), SECONDS)
    third, fourth = (vector_file(worker.description, seed=seed) for seed in (3, 4))
    meanwhile = await asyncio.wait_for(bring(http, headers, third), SECONDS)
    assert meanwhile.status_code == 201
    released.set()
    assert (await combining).status_code == 201
    assert (await bring(http, headers, fourth)).status_code == 403


async def test_requests_in_flight_are_limited(
    http: httpx.AsyncClient, sessions: Sessions, worker: FakeWorker
) -> None:
    headers = await key_headers(sessions, quotas=Quotas(requests=1))
    worker.is_stuck = True
    waiting = asyncio.create_task(
        http.post("/steer/generate", json={"prompt": "x"}, headers=headers)
    )
    await worker.wait_until_running(1)
    refused = await http.get("/vectors", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "busy")
    assert refused.json()["details"] == {"quota": "requests", "limit": 1, "found": 1}
    assert refused.headers["retry-after"] == "1"
    other = await key_headers(sessions)
    assert (await http.get("/vectors", headers=other)).status_code == 200
    worker.released.set()
    assert (await waiting).status_code == 200
    assert (await http.get("/vectors", headers=headers)).status_code == 200


async def test_a_key_makes_none_that_may_do_more(
    http: httpx.AsyncClient, sessions: Sessions
) -> None:
    headers = await key_headers(sessions, quotas=Quotas(vectors=3, jobs=5))
    asked = {"name": "k", "scopes": ["admin"], "quotas": {"vectors": 9, "bytes": 7}}
    made = (await http.post("/keys", json=asked, headers=headers)).json()
    assert made["quotas"] == {"requests": None, "jobs": 5, "bytes": 7, "vectors": 3}
    listed = (await http.get("/keys", headers=headers)).json()["items"]
    assert [key["quotas"]["vectors"] for key in listed] == [3, 3]
    bad = {**asked, "quotas": {"vectors": -1}}
    assert (await http.post("/keys", json=bad, headers=headers)).status_code == 422
