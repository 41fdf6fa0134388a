import asyncio
import json
import os
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from obstore.exceptions import GenericError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typer.testing import CliRunner

from app.cli.app import build
from app.core.settings import Settings
from app.library.datasets import delete_dataset, hold_file
from app.library.garbage import collect_garbage
from app.library.storage import DATASETS, ObjectStore, checkpoint_key, dataset_key
from tests.fakes.api_calls import OCTETS, parquet, upload

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return ObjectStore(settings.objects_url)


@pytest.mark.anyio
async def test_an_unused_data_set_goes_with_its_bytes_and_names(
    http: httpx.AsyncClient, store: ObjectStore, tmp_path: Path
) -> None:
    content = parquet(tmp_path)
    made = (await upload(http, content, name="one")).json()
    await upload(http, content, name="two")
    refused = await http.delete("/datasets/one")
    assert (refused.status_code, refused.json()["details"]["names"]) == (409, ["two"])
    assert (await http.get("/datasets/two")).status_code == 200
    assert (await http.delete(f"/datasets/{made['id']}")).status_code == 204
    for ref in (made["id"], "one", "two"):
        assert (await http.get(f"/datasets/{ref}")).status_code == 404
        assert (await http.delete(f"/datasets/{ref}")).status_code == 404
    assert (await http.get("/datasets")).json()["items"] == []
    assert not await store.exists(dataset_key(made["sha256"]))
    audit = (await http.get("/audit", params={"subject": made["id"]})).json()["items"]
    deeds = ["dataset.create", "dataset.name", "dataset.delete"]
    assert [item["action"] for item in audit] == deeds
    for name in ("one", "two"):
        assert (await http.get("/audit", params={"subject": name})).json()["items"] == audit


@pytest.mark.anyio
async def test_a_bucket_that_is_away_keeps_nothing_half(
    http: httpx.AsyncClient, store: ObjectStore, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: object, **_options: object) -> None:
        raise GenericError("error sending request")

    content = parquet(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(obstore, "put_async", away)
        refused = await upload(http, content)
    assert (refused.status_code, refused.json()["code"]) == (503, "storage-unavailable")
    assert refused.headers["retry-after"] == "5"
    assert (await http.get("/datasets")).json()["items"] == []
    made = (await upload(http, content)).json()
    with monkeypatch.context() as patched:
        patched.setattr(obstore, "delete_async", away)
        assert (await http.delete("/datasets/d")).status_code == 204
    assert (await http.get("/datasets/d")).status_code == 404
    assert await store.exists(dataset_key(made["sha256"]))


@pytest.mark.anyio
async def test_an_upload_that_is_cancelled_takes_its_file_along(
    http: httpx.AsyncClient, store: ObjectStore, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put_async

    async def put_and_end(*arguments: Any, **options: Any) -> None:  # noqa: ANN401
        await put(*arguments, **options)
        assert await store.keys(DATASETS)
        raise asyncio.CancelledError

    monkeypatch.setattr(obstore, "put_async", put_and_end)
    with pytest.raises(asyncio.CancelledError):
        await upload(http, parquet(tmp_path))
    assert await store.keys(DATASETS) == {}


@pytest.mark.anyio
async def test_a_data_set_is_deleted_although_its_file_waits_for_a_lock(
    http: httpx.AsyncClient, *, store: ObjectStore, sessions: Sessions, tmp_path: Path
) -> None:
    made = (await upload(http, parquet(tmp_path))).json()
    key = dataset_key(made["sha256"])
    async with sessions.begin() as session:
        # As somebody does who stores the same content, longer than others wait.
        await hold_file(session, key)
        assert (await http.delete("/datasets/d")).status_code == 204
    assert (await http.get("/datasets/d")).status_code == 404
    assert await store.exists(key)


@pytest.mark.anyio
async def test_the_trail_tells_from_where_to_where_a_name_moved(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    contents = [parquet(tmp_path, items=items) for items in (1, 2)]
    first, second = [(await upload(http, content, name="d")).json() for content in contents]
    # The same again moves nothing.
    for content in (contents[1], contents[0]):
        await upload(http, content, name="d")
    audit = (await http.get("/audit", params={"action": "dataset.name"})).json()["items"]
    assert [(item["subject"], item["details"]["previous"]) for item in audit] == [
        (second["id"], first["id"]),
        (first["id"], second["id"]),
    ]


@pytest.mark.anyio
async def test_a_data_set_comes_back_with_its_content(
    http: httpx.AsyncClient, store: ObjectStore, tmp_path: Path
) -> None:
    content = parquet(tmp_path)
    made = (await upload(http, content, name="one")).json()
    stored = await store.get_bytes(dataset_key(made["sha256"]))
    await http.delete("/datasets/one")
    again = await upload(http, content, name="again")
    assert again.status_code == 201
    assert (again.json()["id"], again.json()["sha256"]) == (made["id"], made["sha256"])
    assert await store.get_bytes(dataset_key(made["sha256"])) == stored
    assert (await http.get("/datasets/again")).status_code == 200
    assert (await http.get("/datasets/one")).status_code == 404
    listed = (await http.get("/datasets")).json()["items"]
    assert [item["name"] for item in listed] == ["again"]


@pytest.mark.anyio
async def test_a_data_set_that_a_job_needs_stays_until_the_job_has_ended(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    made = (await upload(http, parquet(tmp_path), name="one")).json()
    job = (await http.post("/train", json={"name": "v", "dataset": "one"})).json()
    refused = await http.delete("/datasets/one")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert refused.json()["details"]["jobs"] == [job["id"]]
    await http.post(f"/train/{job['id']}/cancel")
    assert (await http.delete(f"/datasets/{made['id']}")).status_code == 204
    # What is known of the job is not lost with it.
    assert (await http.get(f"/train/{job['id']}")).json()["dataset_id"] == made["id"]
    started = await http.post("/train", json={"name": "v", "dataset": made["id"]})
    assert started.status_code == 404


@pytest.mark.anyio
async def test_uploads_and_deletions_at_once_leave_row_and_file_or_neither(
    http: httpx.AsyncClient, store: ObjectStore, tmp_path: Path
) -> None:
    content = parquet(tmp_path)
    made = (await upload(http, content, name="one")).json()
    for _ in range(5):
        calls = [upload(http, content, name="one"), http.delete(f"/datasets/{made['id']}")]
        await asyncio.gather(*calls, *[upload(http, content, name="one")])
        is_known = (await http.get(f"/datasets/{made['id']}")).status_code == 200
        assert await store.exists(dataset_key(made["sha256"])) == is_known


@pytest.mark.anyio
async def test_what_a_crash_left_behind_is_collected(
    http: httpx.AsyncClient, settings: Settings, sessions: Sessions
) -> None:
    store, folder = ObjectStore(settings.objects_url), settings.data_dir
    gone = (await upload(http, parquet(folder, items=2), name="gone")).json()
    kept = (await upload(http, parquet(folder, items=3), name="kept")).json()
    async with sessions.begin() as session:
        await delete_dataset(session, "gone")
    running, ended = [
        (await http.post("/train", json={"name": "v", "dataset": "kept"})).json() for _ in range(2)
    ]
    await http.post(f"/train/{ended['id']}/cancel")
    for job in (running, ended):
        await store.put_bytes(checkpoint_key(job["id"]), b"state")
    for is_dry in (True, False):
        found = await collect_garbage(sessions, store, dry_run=is_dry)
        assert found == {"datasets": 1, "checkpoints": 1}
    assert await collect_garbage(sessions, store, dry_run=False) == {
        "datasets": 0,
        "checkpoints": 0,
    }
    assert not await store.exists(dataset_key(gone["sha256"]))
    assert await store.exists(dataset_key(kept["sha256"]))
    assert await store.exists(checkpoint_key(running["id"]))
    assert not await store.exists(checkpoint_key(ended["id"]))


@pytest.mark.anyio
async def test_a_data_set_that_is_refused_at_the_end_leaves_no_file(
    http: httpx.AsyncClient, store: ObjectStore, tmp_path: Path
) -> None:
    once = OCTETS | {"idempotency-key": "k"}
    contents = [parquet(tmp_path, items=items) for items in (1, 2)]
    answers = [
        await http.post("/datasets?name=d", content=content, headers=once) for content in contents
    ]
    assert [answer.status_code for answer in answers] == [201, 422]
    assert list(await store.keys("datasets")) == [dataset_key(answers[0].json()["sha256"])]
    # What was answered before is not stored again either.
    await http.delete("/datasets/d")
    again = await http.post("/datasets?name=d", content=contents[0], headers=once)
    assert again.headers["idempotency-replayed"] == "true"
    assert await store.keys("datasets") == {}


@pytest.mark.anyio
async def test_files_that_no_data_set_ever_named_are_collected_once_they_are_old(
    settings: Settings, sessions: Sessions
) -> None:
    store = ObjectStore(settings.objects_url)
    # As a process leaves them that is killed between a file and its row.
    old, new = dataset_key("a" * 64, workspace="theirs"), dataset_key("b" * 64)
    for key in (old, new):
        await store.put_bytes(key, b"rows")
    os.utime(settings.data_dir / "objects" / old, (0, 0))
    assert (await collect_garbage(sessions, store, dry_run=True))["datasets"] == 1
    assert (await collect_garbage(sessions, store, dry_run=False))["datasets"] == 1
    assert list(await store.keys("datasets")) == [new]


def test_the_command_says_what_went(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("VLIBRARY_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(build(), ["gc", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "Would remove 0 files of data sets and 0 checkpoints\n"
    result = CliRunner().invoke(build(), ["gc", "--json"])
    assert json.loads(result.stdout) == {"datasets": 0, "checkpoints": 0}
