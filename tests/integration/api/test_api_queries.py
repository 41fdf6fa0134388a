from pathlib import Path

import httpx
import pytest

from app.library.storage import dataset_key
from tests.fakes.api_calls import parquet, upload
from tests.fakes.servers.worker import FakeWorker, backbone, embedding_of
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio

BAD_QUERIES: list[dict[str, object]] = [
    {},
    {"text": "q", "embedding": [1.0, 0.0]},
    {"embedding": [0.0] * 16},
    {"embedding": [1.0] * 15},
    {"embedding": [1e300] * 16},
    {"text": "q", "k": 10**9},
    {"text": "q", "k": 0},
    {"text": "q", "backbone": ""},
    {"text": "q", "name": "A B"},
    {"text": "q", "tags": "checked"},
]


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

    async def test_an_answer_that_is_not_proven_is_never_given(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, worker.description)
        body = {"prompt": "q", "vector": "colours"}
        for worker.forget_vectors, worker.sites_hit in ((True, None), (False, 3), (False, 0)):
            response = await http.post("/steer/generate", json=body)
            assert (response.status_code, response.json()["code"]) == (500, "steering-failed")
            assert "plain" not in response.text

    async def test_vectors_of_another_backbone_are_refused(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, backbone("b"), name="other")
        await store_vector(sessions, worker.description, name="fits")
        wanted, other = "a" * 64, "b" * 64
        for vector, found in (("other", [other]), (["fits", "other"], [wanted, other])):
            body = {"prompt": "q", "vector": vector}
            response = await http.post("/steer/generate", json=body)
            assert response.status_code == 409
            assert response.json()["code"] == "incompatible-backbone"
            assert response.json()["details"] == {"wanted": [wanted], "found": found}
        assert worker.generated == []

    async def test_references_that_lead_nowhere(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, worker.description)
        cases = {"nobody": 404, "colours@9": 404, "colours@none": 404}
        for ref, status in cases.items():
            response = await http.post("/steer/generate", json={"prompt": "q", "vector": ref})
            assert response.status_code == status
        twice = {"prompt": "q", "vector": ["colours", "colours@1"]}
        assert (await http.post("/steer/generate", json=twice)).status_code == 422

    async def test_demonstrations_name_a_stored_file(
        self, http: httpx.AsyncClient, worker: FakeWorker, tmp_path: Path
    ) -> None:
        dataset = (await upload(http, parquet(tmp_path))).json()
        demonstrations = {"dataset": "d", "shots": 4, "selection": "nearest", "seed": 1}
        body = {"prompt": "q", "demonstrations": demonstrations}
        assert (await http.post("/steer/generate", json=body)).status_code == 200
        asked = worker.generated[0].demonstrations
        assert asked is not None
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
        (match,) = found["matches"]
        assert match["score"] == pytest.approx(1, abs=1e-5)
        assert match["similarity"] == pytest.approx(1, abs=1e-5)
        assert match["is_accepted"] is True
        assert (found["abstained"], found["reason"], found["epoch"]) == (False, None, 1)
        same = (await http.post("/retrieve", json={"embedding": key})).json()
        assert same["matches"] == found["matches"]
        other = (await http.post("/retrieve", json={"text": "How late is it?"})).json()
        assert (other["abstained"], other["reason"]) == (True, "below-threshold")
        late = await http.post("/retrieve", json={"text": "q", "min_epoch": 99})
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")

    async def test_only_what_matches_the_filters_is_found(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        key = embedding_of(None, "q")
        for seed, name in enumerate(("english", "spanish")):
            await store_vector(sessions, worker.description, name=name, seed=seed, key=key)
        await http.patch("/vectors/spanish", json={"tags": ["checked", "stored"]})
        for filters, wanted in (
            ({"tags": ["checked"]}, ["spanish"]),
            ({"tags": ["stored"], "name": "english"}, ["english"]),
            ({"tags": ["checked"], "name": "english"}, []),
            ({"name": "nobody"}, []),
            ({"words": "PAN check"}, ["spanish"]),
            ({"words": "pan", "tags": ["other"]}, []),
        ):
            found = (await http.post("/retrieve", json={"text": "q", **filters})).json()
            assert [match["vector"]["name"] for match in found["matches"]] == wanted
            # As if nothing else were stored, so of these two that look alike one is clear.
            assert found["reason"] == (None if wanted else "no-vectors")

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

    async def test_a_request_says_which_of_two_that_look_the_same_is_meant(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        key = embedding_of(None, "q")
        for seed, name in enumerate(("english", "spanish")):
            await store_vector(sessions, worker.description, name=name, seed=seed, key=key)
        unsure = (await http.post("/retrieve", json={"text": "q"})).json()
        assert (unsure["abstained"], unsure["reason"]) == (True, "ambiguous")
        assert [match["is_accepted"] for match in unsure["matches"]] == [True, True]
        found = (await http.post("/retrieve", json={"text": "q", "prefer": "spanish"})).json()
        assert (found["matches"][0]["vector"]["name"], found["reason"]) == ("spanish", None)
        body = {"prompt": "q", "vector": "auto", "prefer": "english"}
        steered = (await http.post("/steer/generate", json=body)).json()
        assert [use["name"] for use in steered["applied"]] == ["english"]
        unknown = await http.post("/retrieve", json={"text": "q", "prefer": "spansh"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not-found")
        assert "spansh" in unknown.json()["detail"]
        await store_vector(sessions, worker.description, name="other")
        other = (await http.post("/retrieve", json={"text": "q", "prefer": "other"})).json()
        assert other["reason"] == "ambiguous"
        told = (await http.get("/vectors/english")).json()
        assert told["overlaps"] == ["spanish"]
        for wrong in ({"prefer": "english"}, {"only_ready": False, "vector": "english"}):
            refused = await http.post("/steer/generate", json={"prompt": "q", **wrong})
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid-input")

    async def test_auto_takes_vectors_that_are_not_ready_only_when_asked(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, worker.description, key=embedding_of(None, "q"))
        await http.patch("/vectors/colours", json={"status": "unproven"})
        body = {"prompt": "q", "vector": "auto"}
        plain = (await http.post("/steer/generate", json=body)).json()
        assert (plain["applied"], plain["retrieval"]["reason"]) == ([], "no-vectors")
        asked = (await http.post("/steer/generate", json={**body, "only_ready": False})).json()
        applied = [(use["name"], use["status"]) for use in asked["applied"]]
        assert applied == [("colours", "unproven")]

    async def test_collapsed_vectors_are_found_only_when_asked_for(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, worker.description, key=embedding_of(None, "q"))
        await http.patch("/vectors/colours", json={"status": "collapsed"})
        hidden = (await http.post("/retrieve", json={"text": "q"})).json()
        assert (hidden["matches"], hidden["reason"]) == ([], "no-vectors")
        shown = (await http.post("/retrieve", json={"text": "q", "only_ready": False})).json()
        assert len(shown["matches"]) == 1

    async def test_queries_that_cannot_be_answered(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        await store_vector(sessions, worker.description, key=embedding_of(None, "q"))
        for body in BAD_QUERIES:
            response = await http.post("/retrieve", json=body)
            assert (response.status_code, response.json()["code"]) == (422, "invalid-input"), body
        image = await http.post("/retrieve", json={"image": "zzz"})
        assert image.json()["code"] == "invalid-image"
        other = await http.post("/retrieve", json={"text": "q", "backbone": "b" * 64})
        assert (other.status_code, other.json()["code"]) == (409, "incompatible-backbone")


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

    async def test_a_silent_worker_is_told_in_time(
        self, http: httpx.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert (await http.get("/readyz")).status_code == 200
        monkeypatch.setattr("app.api.routes.health.CHECK_TIMEOUT_SECONDS", 0.5)
        monkeypatch.setattr("app.rpc.pool.HEALTH_AGE_SECONDS", 0.0)
        worker.is_silent = True
        response = await http.get("/readyz")
        assert response.status_code == 503
        checks = response.json()["checks"]
        assert checks["worker"] == {"ok": False, "detail": "no answer in time"}
        assert checks["database"]["ok"] is True
