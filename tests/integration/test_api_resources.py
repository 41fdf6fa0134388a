import asyncio
import hashlib
import io
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.settings import Settings
from app.library.attempts import mark_cancelled
from app.library.storage import ObjectStore, dataset_key
from app.main import create_app
from tests.fakes.training import begin, fail, report, store_vector, vector_file
from tests.fakes.worker import FakeWorker, backbone, embedding_of
from vlibrary_client.uploads import write_parquet

pytestmark = pytest.mark.anyio

Sessions = async_sessionmaker[AsyncSession]
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database,
            "data_dir": tmp_path,
            "max_upload_bytes": 200_000,
            "job_stalled_seconds": 3600,
            "request_timeout_seconds": 20,
        }
    )


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
async def api(settings: Settings, worker: FakeWorker) -> AsyncIterator[FastAPI]:
    app = create_app(settings, workers=worker.client())
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def http(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def parquet(folder: Path, *, items: int = 3) -> bytes:
    rows = [{"image": png(), "question": f"What? {n}", "answer": "red"} for n in range(items)]
    write_parquet(rows, folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


async def upload(http: httpx.AsyncClient, content: bytes, *, name: str = "d") -> httpx.Response:
    return await http.post("/datasets", params={"name": name}, content=content, headers=OCTETS)


async def train(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/train", json={"name": "colours", "dataset": "d", **body})


class TestDatasets:
    async def test_the_same_bytes_are_the_same_data_set(
        self, http: httpx.AsyncClient, settings: Settings, tmp_path: Path
    ) -> None:
        content = parquet(tmp_path)
        first = await upload(http, content, name="first")
        again = await upload(http, content, name="second")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        assert first.headers["location"] == f"/datasets/{first.json()['id']}"
        body = first.json()
        assert (body["num_items"], body["num_images"]) == (3, 1)
        assert body["sha256"] == hashlib.sha256(content).hexdigest()
        stored = await ObjectStore(settings.objects_url).get_bytes(dataset_key(body["sha256"]))
        assert stored == content
        assert not list((settings.data_dir / "uploads").iterdir())
        by_name = await http.get("/datasets/second")
        by_id = await http.get(f"/datasets/{body['id']}")
        assert by_name.json()["id"] == by_id.json()["id"] == body["id"]

    @pytest.mark.parametrize(
        ("content", "status", "code"),
        [
            (b"", 422, "invalid-input"),
            (b"nonsense", 422, "invalid-dataset"),
            (b"PAR1" + b"x" * 100 + b"PAR1", 422, "invalid-dataset"),
            (b"x" * 200_001, 413, "too-large"),
        ],
    )
    async def test_what_is_no_data_set_is_refused(
        self, http: httpx.AsyncClient, *, content: bytes, status: int, code: str
    ) -> None:
        response = await upload(http, content)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert (await http.get("/datasets")).json() == {"items": [], "next_cursor": None}

    async def test_an_endless_body_is_cut_off(self, http: httpx.AsyncClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 50_000

        response = await http.post("/datasets?name=d", content=endless(), headers=OCTETS)
        assert (response.status_code, response.json()["code"]) == (413, "too-large")

    async def test_the_name_and_the_type_are_checked(self, http: httpx.AsyncClient) -> None:
        assert (await upload(http, b"x", name="../up")).status_code == 422
        response = await http.post("/datasets?name=d", content=b"x")
        assert (response.status_code, response.json()["code"]) == (415, "unsupported-media-type")

    async def test_pages_follow_each_other(self, http: httpx.AsyncClient, tmp_path: Path) -> None:
        made = [
            (await upload(http, parquet(tmp_path, items=n), name=f"d{n}")).json()["id"]
            for n in range(1, 4)
        ]
        first = (await http.get("/datasets", params={"limit": 2})).json()
        rest = (await http.get("/datasets", params={"cursor": first["next_cursor"]})).json()
        assert [item["id"] for item in first["items"] + rest["items"]] == made[::-1]
        assert rest["next_cursor"] is None
        bad = await http.get("/datasets", params={"cursor": "zz"})
        assert (bad.status_code, bad.json()["code"]) == (422, "invalid-input")

    @pytest.mark.parametrize("ref", ["nobody", str(uuid.UUID(int=7))])
    async def test_an_unknown_data_set_is_404(self, http: httpx.AsyncClient, ref: str) -> None:
        assert (await http.get(f"/datasets/{ref}")).status_code == 404


class TestVectors:
    async def test_a_file_comes_back_as_it_was_imported(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        blob = vector_file(worker.description)
        params = {"name": "mine", "description": "d", "tags": ["x", "y"]}
        made = await http.post("/vectors", params=params, content=blob, headers=OCTETS)
        again = await http.post("/vectors", params=params, content=blob, headers=OCTETS)
        assert (made.status_code, again.status_code) == (201, 200)
        assert made.json() == again.json()
        body = made.json()
        assert (body["name"], body["version"], body["shots"]) == ("mine", 1, 16)
        assert (body["tags"], body["aliases"]) == (["x", "y"], ["latest"])
        assert made.headers["location"] == f"/vectors/{body['id']}"
        file = await http.get("/vectors/mine@1/file")
        assert file.content == blob
        assert file.headers["etag"] == f'"{hashlib.sha256(blob).hexdigest()}"'

    async def test_a_known_backbone_is_enough_for_an_import(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, backbone("b"))
        blob = vector_file(backbone("b"), seed=5)
        response = await http.post("/vectors?name=other", content=blob, headers=OCTETS)
        assert response.status_code == 201
        assert response.json()["backbone"]["fingerprint"] == "b" * 64

    async def test_files_of_unknown_backbones_are_refused(self, http: httpx.AsyncClient) -> None:
        blob = vector_file(backbone("c"))
        response = await http.post("/vectors?name=other", content=blob, headers=OCTETS)
        assert (response.status_code, response.json()["code"]) == (409, "incompatible-backbone")
        assert response.json()["details"] == {"wanted": ["a" * 64], "found": ["c" * 64]}

    async def test_broken_files_are_refused(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        blob = vector_file(worker.description)
        wrong_size = vector_file(worker.description, num_layers=3)
        for content in (blob[:-1], b"x" + blob, b"", wrong_size, b"\xff" * 100):
            response = await http.post("/vectors?name=n", content=content, headers=OCTETS)
            assert response.status_code == 422
        assert (await http.get("/vectors")).json()["items"] == []

    async def test_listing_filters_and_pages(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        for seed, name in enumerate(["a", "a", "b"]):
            await store_vector(sessions, worker.description, name=name, seed=seed)
        await store_vector(sessions, backbone("b"), name="c")
        everything = (await http.get("/vectors")).json()["items"]
        assert [(item["name"], item["version"]) for item in everything] == [
            ("c", 1),
            ("b", 1),
            ("a", 2),
            ("a", 1),
        ]

        async def names(**params: Any) -> list[str]:
            body = (await http.get("/vectors", params=params)).json()
            return [f"{item['name']}@{item['version']}" for item in body["items"]]

        assert await names(name="a") == ["a@2", "a@1"]
        assert await names(backbone="b" * 64) == ["c@1"]
        assert await names(tag="stored", status="ready", limit=1) == ["c@1"]
        assert await names(status="retired") == []
        assert await names(tag="none") == []

    async def test_descriptions_change_and_numbers_do_not(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        record = await store_vector(sessions, worker.description)
        patch = {"description": "new", "tags": ["b", "a"], "status": "collapsed"}
        changed = (await http.patch(f"/vectors/{record.id}", json=patch)).json()
        assert (changed["description"], changed["tags"], changed["status"]) == (
            "new",
            ["a", "b"],
            "collapsed",
        )
        assert changed["sha256"] == record.sha256
        untouched = (await http.patch("/vectors/colours", json={})).json()
        assert untouched == changed
        refused = await http.patch("/vectors/colours", json={"sha256": "0" * 64})
        assert refused.status_code == 422

    async def test_aliases_are_compared_and_set(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        for seed in range(2):
            await store_vector(sessions, worker.description, seed=seed)

        async def put(**body: object) -> int:
            return (await http.put("/vectors/colours/aliases/prod", json=body)).status_code

        assert await put(version=1, expected_version=2) == 409
        assert await put(version=1, expected_version=0) == 200
        assert await put(version=2, expected_version=0) == 409
        assert await put(version=9) == 404
        assert (await http.get("/vectors/colours@prod")).json()["version"] == 1
        assert await put(version=2, expected_version=1) == 200
        assert (await http.get("/vectors/colours@prod")).json()["aliases"] == ["latest", "prod"]

    async def test_a_vector_in_use_is_not_deleted(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        record = await store_vector(sessions, worker.description)
        await http.put("/vectors/colours/aliases/prod", json={"version": 1})
        refused = await http.delete("/vectors/colours@1")
        assert (refused.status_code, refused.json()["details"]) == (409, {"aliases": ["prod"]})
        other = await store_vector(sessions, worker.description, seed=2)
        assert (await http.delete(f"/vectors/{other.id}")).status_code == 204
        assert (await http.get(f"/vectors/{other.id}")).status_code == 404
        assert (await http.get("/vectors/colours")).json()["id"] == str(record.id)
        assert (await http.delete(f"/vectors/{other.id}")).status_code == 404


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

    @pytest.mark.parametrize(
        "body",
        [
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
            {"tags": ["x"] * 33},
            {"tags": ["a\u0000"]},
            {"description": "x" * 10_001},
        ],
    )
    async def test_settings_out_of_bounds_are_refused(
        self, http: httpx.AsyncClient, tmp_path: Path, body: dict[str, object]
    ) -> None:
        await upload(http, parquet(tmp_path))
        response = await train(http, **body)
        assert (response.status_code, response.json()["code"]) == (422, "invalid-input")
        assert (await http.get("/train")).json()["items"] == []

    async def test_an_unknown_data_set_is_404(self, http: httpx.AsyncClient) -> None:
        assert (await train(http, dataset="nobody")).status_code == 404

    async def test_equal_keys_start_one_job(
        self, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        await upload(http, parquet(tmp_path))
        headers = {"idempotency-key": "once"}
        body = {"name": "colours", "dataset": "d"}
        answers = await asyncio.gather(
            *(http.post("/train", json=body, headers=headers) for _ in range(8))
        )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        other = await http.post("/train", json={**body, "shots": 3}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "conflict")
        bad = await http.post("/train", json=body, headers={"idempotency-key": "a b"})
        assert bad.status_code == 422

    async def test_a_waiting_job_is_cancelled_at_once(
        self, http: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        await upload(http, parquet(tmp_path))
        job = (await train(http)).json()
        for _ in range(2):
            cancelled = await http.post(f"/train/{job['id']}/cancel")
            assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")

    async def test_a_failed_job_says_why_and_cannot_be_cancelled(
        self, http: httpx.AsyncClient, sessions: Sessions, tmp_path: Path
    ) -> None:
        await upload(http, parquet(tmp_path))
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
        assert (await http.get("/train/not-an-id")).status_code == 422

    async def test_events_are_replayed_from_where_the_client_stands(
        self, http: httpx.AsyncClient, sessions: Sessions, tmp_path: Path
    ) -> None:
        await upload(http, parquet(tmp_path))
        job_id = uuid.UUID((await train(http)).json()["id"])
        token = await begin(sessions, job_id)
        for step in range(3):
            await report(sessions, job_id, token, step=step)
        listening = asyncio.create_task(http.get(f"/train/{job_id}/events"))
        await asyncio.sleep(0.1)
        await http.post(f"/train/{job_id}/cancel")
        assert await report(sessions, job_id, token, step=3)
        await end_cancelled(sessions, job_id, token)
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


def ids(text: str) -> list[int]:
    return [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]


async def end_cancelled(sessions: Sessions, job_id: uuid.UUID, token: int) -> None:
    async with sessions() as session, session.begin():
        await mark_cancelled(session, job_id, token)


class TestSteering:
    async def test_vectors_are_applied_as_asked(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        first = await store_vector(sessions, worker.description, name="a")
        second = await store_vector(sessions, worker.description, name="b", seed=2)
        vectors = ["a@latest", {"ref": str(second.id), "strength": -0.5}]
        body = {"prompt": "q", "vector": vectors, "strength": 2, "baseline": True}
        answer = (await http.post("/steer/generate", json=body)).json()
        assert answer["text"] == "a@1*2+b@1*-0.5"
        assert answer["baseline"]["text"] == "plain"
        assert [(use["id"], use["sha256"], use["strength"]) for use in answer["applied"]] == [
            (str(first.id), first.sha256, 2.0),
            (str(second.id), second.sha256, -0.5),
        ]
        assert (answer["receipt"]["sites_hit"], answer["receipt"]["sites_expected"]) == (4, 4)

    @pytest.mark.parametrize("change", [{"forget_vectors": True}, {"sites_hit": 3}])
    async def test_an_answer_that_is_not_proven_is_never_given(
        self,
        http: httpx.AsyncClient,
        worker: FakeWorker,
        *,
        sessions: Sessions,
        change: dict[str, Any],
    ) -> None:
        await store_vector(sessions, worker.description)
        for name, value in change.items():
            setattr(worker, name, value)
        body = {"prompt": "q", "vector": "colours"}
        response = await http.post("/steer/generate", json=body)
        assert (response.status_code, response.json()["code"]) == (500, "steering-failed")
        assert "plain" not in response.text

    async def test_vectors_of_another_backbone_are_refused(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, backbone("b"), name="other")
        await store_vector(sessions, worker.description, name="fits")
        for vector in ("other", ["fits", "other"]):
            body = {"prompt": "q", "vector": vector}
            response = await http.post("/steer/generate", json=body)
            assert response.status_code == 409
            assert response.json()["code"] == "incompatible-backbone"
        assert response.json()["details"] == {
            "wanted": ["a" * 64],
            "found": ["a" * 64, "b" * 64],
        }
        assert worker.generated == []

    @pytest.mark.parametrize(
        ("vector", "status"),
        [("nobody", 404), ("colours@9", 404), ("colours@none", 404), (["colours"] * 2, 422)],
    )
    async def test_references_that_lead_nowhere(
        self,
        http: httpx.AsyncClient,
        worker: FakeWorker,
        *,
        sessions: Sessions,
        vector: object,
        status: int,
    ) -> None:
        await store_vector(sessions, worker.description)
        response = await http.post("/steer/generate", json={"prompt": "q", "vector": vector})
        assert response.status_code == status

    async def test_demonstrations_name_a_stored_file(
        self, http: httpx.AsyncClient, worker: FakeWorker, tmp_path: Path
    ) -> None:
        dataset = (await upload(http, parquet(tmp_path))).json()
        demonstrations = {"dataset": "d", "shots": 4, "selection": "nearest", "seed": 1}
        body = {"prompt": "q", "demonstrations": demonstrations}
        assert (await http.post("/steer/generate", json=body)).status_code == 200
        asked = worker.generated[0].demonstrations
        assert asked is not None
        assert str(asked.dataset_id) == dataset["id"]
        assert asked.storage_key == dataset_key(dataset["sha256"])
        assert (asked.shots, asked.selection) == (4, "nearest")


class TestRetrieval:
    async def test_the_fitting_vector_is_found_and_others_are_not(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        key = embedding_of(None, "What colour?")
        record = await store_vector(sessions, worker.description, key=key)
        found = (await http.post("/retrieve", json={"text": "What colour?"})).json()
        assert [match["vector"]["id"] for match in found["matches"]] == [str(record.id)]
        assert found["matches"][0]["score"] == pytest.approx(1, abs=1e-5)
        assert (found["abstained"], found["reason"], found["epoch"]) == (False, None, 1)
        same = (await http.post("/retrieve", json={"embedding": key})).json()
        assert same["matches"] == found["matches"]
        other = (await http.post("/retrieve", json={"text": "How late is it?"})).json()
        assert (other["abstained"], other["reason"]) == (True, "below-threshold")
        late = await http.post("/retrieve", json={"text": "q", "min_epoch": 99})
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")

    async def test_auto_steers_or_says_that_it_did_not(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        key = embedding_of(None, "What colour?")
        record = await store_vector(sessions, worker.description, key=key)
        body = {"prompt": "What colour?", "vector": "auto", "strength": 0.5}
        steered = (await http.post("/steer/generate", json=body)).json()
        assert [use["id"] for use in steered["applied"]] == [str(record.id)]
        assert (steered["text"], steered["retrieval"]["abstained"]) == ("colours@1*0.5", False)
        assert steered["retrieval"]["threshold"] == 0.5
        unrelated = {"prompt": "How late is it?", "vector": "auto"}
        plain = (await http.post("/steer/generate", json=unrelated)).json()
        assert (plain["text"], plain["applied"]) == ("plain", [])
        assert plain["retrieval"]["abstained"] is True
        assert plain["retrieval"]["reason"] == "below-threshold"
        assert plain["retrieval"]["score"] < 0.5

    async def test_collapsed_vectors_are_found_only_when_asked_for(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, worker.description, key=embedding_of(None, "q"))
        await http.patch("/vectors/colours", json={"status": "collapsed"})
        hidden = (await http.post("/retrieve", json={"text": "q"})).json()
        assert (hidden["matches"], hidden["reason"]) == ([], "no-vectors")
        shown = (await http.post("/retrieve", json={"text": "q", "include_collapsed": True})).json()
        assert len(shown["matches"]) == 1

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({}, 422),
            ({"text": "q", "embedding": [1.0, 0.0]}, 422),
            ({"embedding": [0.0] * 16}, 422),
            ({"embedding": [1.0] * 15}, 422),
            ({"embedding": [1e300] * 16}, 422),
            ({"text": "q", "k": 10**9}, 422),
            ({"text": "q", "k": 0}, 422),
            ({"text": "q", "backbone": "b" * 64}, 409),
            ({"text": "q", "backbone": "not hex"}, 422),
            ({"image": "zzz"}, 422),
        ],
    )
    async def test_queries_that_cannot_be_answered(
        self,
        http: httpx.AsyncClient,
        worker: FakeWorker,
        *,
        sessions: Sessions,
        body: dict[str, object],
        status: int,
    ) -> None:
        await store_vector(sessions, worker.description, key=embedding_of(None, "q"))
        assert (await http.post("/retrieve", json=body)).status_code == status


class TestHealth:
    async def test_everything_is_ready(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/livez")).json() == {"status": "alive"}
        response = await http.get("/readyz")
        assert response.status_code == 200
        checks = response.json()["checks"]
        assert {name: check["ok"] for name, check in checks.items()} == {
            "database": True,
            "worker": True,
            "index": True,
        }
        assert (await http.get("/backbones")).json()["items"][0]["name"] == "fake-a"

    async def test_a_missing_worker_is_told(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        worker.is_down = True
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert response.json()["checks"]["worker"]["ok"] is False
        assert response.json()["checks"]["database"]["ok"] is True
        assert (await http.get("/livez")).status_code == 200
