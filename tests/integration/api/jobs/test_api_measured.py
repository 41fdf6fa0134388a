from dataclasses import replace

import httpx
import pytest

from tests.fakes.library import store_dataset
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio


async def add_dataset(sessions: Sessions, **splits: int) -> str:
    async with sessions.begin() as session:
        return str((await store_dataset(session, "d", splits=splits)).id)


class TestCombination:
    async def test_a_combination_is_a_job_with_its_parts(
        self, http: httpx.AsyncClient, sessions: Sessions, *, worker: FakeWorker
    ) -> None:
        dataset = await add_dataset(sessions)
        parts = [
            await store_vector(sessions, worker.description, name=name, seed=seed)
            for seed, name in enumerate(["gears", "colours"])
        ]
        order = {"name": "both", "vectors": ["gears@1", "colours"], "dataset": dataset}
        response = await http.post("/train/combine", json={**order, "rule": "mean", "seed": 2})
        assert response.status_code == 202
        body = response.json()
        assert response.headers["location"] == f"/train/{body['id']}"
        assert body["config"] == {
            "combine": {"rule": "mean", "seed": 2, "parts": [str(part.id) for part in parts]}
        }
        for change, status in (
            ({"vectors": ["gears"]}, 422),
            ({"vectors": ["gears", "gears@1"]}, 422),
            ({"vectors": ["gears", "none"]}, 404),
            ({"dataset": "none"}, 404),
            ({"rule": "luck"}, 422),
        ):
            refused = await http.post("/train/combine", json={**order, **change})
            assert refused.status_code == status, refused.text

    async def test_vectors_of_two_backbones_are_not_combined(
        self, http: httpx.AsyncClient, sessions: Sessions, *, worker: FakeWorker
    ) -> None:
        dataset = await add_dataset(sessions)
        await store_vector(sessions, worker.description, name="gears")
        other = replace(worker.description, fingerprint="f" * 64)
        await store_vector(sessions, other, name="colours")
        refused = await http.post(
            "/train/combine",
            json={"name": "both", "vectors": ["gears", "colours"], "dataset": dataset},
        )
        assert refused.json()["code"] == "incompatible-backbone"


class TestEvaluation:
    async def test_an_evaluation_is_a_job_of_the_vectors_name(
        self, http: httpx.AsyncClient, sessions: Sessions, *, worker: FakeWorker
    ) -> None:
        dataset = await add_dataset(sessions)
        vector = await store_vector(sessions, worker.description, name="gears")
        order = {"vector": "gears@1", "dataset": dataset}
        once = {"idempotency-key": "one"}
        response = await http.post("/evaluations", json=order, headers=once)
        assert response.status_code == 202
        body = response.json()
        assert response.headers["location"] == f"/train/{body['id']}"
        assert body["name"] == "gears"
        assert body["config"] == {
            "evaluate": {
                "vector": str(vector.id),
                "support_split": None,
                "methods": ["m2iv", "zero_shot", "majority", "icl", "knn_icl", "nearest_copy"],
                "shots": 16,
                "items": 200,
                "seed": 0,
            }
        }
        again = await http.post("/evaluations", json=order, headers=once)
        assert (again.json(), again.headers["idempotency-replayed"]) == (body, "true")
        for change, status in (
            ({"vector": "none"}, 404),
            ({"vector": "gears@2"}, 404),
            ({"dataset": "none"}, 404),
            ({"methods": ["luck"]}, 422),
            ({"methods": []}, 422),
            ({"shots": 0}, 422),
            ({"items": 0}, 422),
        ):
            refused = await http.post("/evaluations", json={**order, **change})
            assert refused.status_code == status, refused.text

    async def test_the_test_part_is_asked_and_the_train_part_demonstrates(
        self, http: httpx.AsyncClient, sessions: Sessions, *, worker: FakeWorker
    ) -> None:
        dataset = await add_dataset(sessions, train=1, test=1, dev=1)
        await store_vector(sessions, worker.description, name="gears")
        order = {"vector": "gears", "dataset": dataset}
        config = (await http.post("/evaluations", json=order)).json()["config"]
        assert (config["split"], config["evaluate"]["support_split"]) == ("test", "train")
        named = {**order, "split": "dev", "support_split": "test"}
        config = (await http.post("/evaluations", json=named)).json()["config"]
        assert (config["split"], config["evaluate"]["support_split"]) == ("dev", "test")
        refused = await http.post("/evaluations", json={**order, "split": "none"})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-dataset")

    async def test_a_data_set_is_kept_until_its_evaluation_ends(
        self, http: httpx.AsyncClient, sessions: Sessions, *, worker: FakeWorker
    ) -> None:
        dataset = await add_dataset(sessions)
        await store_vector(sessions, worker.description, name="gears")
        order = {"vector": "gears", "dataset": dataset}
        job = (await http.post("/evaluations", json=order)).json()
        refused = await http.delete(f"/datasets/{dataset}")
        assert (refused.status_code, job["id"] in refused.text) == (409, True)
        await http.post(f"/train/{job['id']}/cancel")
        assert (await http.delete(f"/datasets/{dataset}")).is_success
