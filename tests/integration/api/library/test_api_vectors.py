import asyncio
import hashlib
from dataclasses import replace

import httpx
import numpy as np
import pytest

from app.core.vectors.file import encode_vector_file
from tests.fakes.api_calls import OCTETS
from tests.fakes.servers.worker import FakeWorker, backbone
from tests.fakes.training import Sessions, store_vector, vector_file
from tests.fakes.vectors import forge_file, make_tensors, make_vector_file, split_file

pytestmark = pytest.mark.anyio


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
        # A file that tells of no measurement shows nothing.
        assert body["status"] == "unproven"
        assert made.headers["location"] == f"/vectors/{body['id']}"
        file = await http.get("/vectors/mine@1/file")
        assert file.content == blob
        assert file.headers["etag"] == f'"{hashlib.sha256(blob).hexdigest()}"'

    async def test_no_vector_is_called_like_the_one_that_is_found(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        blob = vector_file(worker.description)
        refused = await http.post("/vectors?name=auto", content=blob, headers=OCTETS)
        assert refused.status_code == 422
        assert "asks for a vector to be found" in refused.json()["detail"]
        assert (await http.get("/vectors/auto")).status_code == 404

    async def test_the_rest_of_a_file_is_sent_by_itself(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        blob = vector_file(worker.description)
        await http.post("/vectors?name=mine", content=blob, headers=OCTETS)
        whole = await http.get("/vectors/mine/file")
        etag = whole.headers["etag"]
        assert whole.headers["accept-ranges"] == "bytes"
        rest = await http.get(
            "/vectors/mine/file", headers={"range": "bytes=100-", "if-range": etag}
        )
        assert (rest.status_code, rest.content) == (206, blob[100:])
        assert rest.headers["content-range"] == f"bytes 100-{len(blob) - 1}/{len(blob)}"
        assert rest.headers["etag"] == etag
        for asked in (
            {"range": "bytes=100-", "if-range": '"older"'},
            {"range": f"bytes={len(blob)}-"},
            {"range": "bytes=0-"},
            {"range": "bytes=5-9"},
            {"range": "bytes=-5"},
            {"range": "nonsense"},
        ):
            found = await http.get("/vectors/mine/file", headers=asked)
            assert (found.status_code, found.content) == (200, blob), asked

    async def test_a_file_takes_what_was_measured_since_along(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        blob = vector_file(worker.description)
        await http.post("/vectors?name=mine", content=blob, headers=OCTETS)
        measured = {
            "dataset": "parts",
            "split": "test",
            "scorer": "exact-answer",
            "items": 40,
            "accuracy": 0.9,
            "low": 0.8,
            "high": 0.95,
            "zero_shot": 0.5,
        }
        await http.post("/vectors/mine/evaluations", json=measured)
        await http.post("/vectors/mine/evaluations", json={**measured, "split": "later"})
        await http.patch("/vectors/mine", json={"status": "unproven"})
        file = await http.get("/vectors/mine/file")
        assert file.headers["etag"] == f'"{hashlib.sha256(file.content).hexdigest()}"'
        made = await http.post("/vectors?name=copy", content=file.content, headers=OCTETS)
        assert made.status_code == 201
        copy = (await http.get("/vectors/copy")).json()
        assert [one["split"] for one in copy["evaluations"]] == ["later", "test"]
        assert {one["accuracy"] for one in copy["evaluations"]} == {0.9}
        assert (copy["status"], copy["shots"], copy["norms"]) == (
            "unproven",
            16,
            (await http.get("/vectors/mine")).json()["norms"],
        )
        # Nothing is new in the copy, so it comes back as it was sent.
        assert (await http.get("/vectors/copy/file")).content == file.content

    async def test_a_file_under_several_names_is_one_version_of_each(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        blob = vector_file(worker.description)
        answers = [
            await http.post(f"/vectors?name={name}", content=blob, headers=OCTETS)
            for name in ("a", "b", "a")
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 200]
        assert answers[2].json()["id"] == answers[0].json()["id"]

    async def test_two_imports_at_once_are_one_version(
        self, http: httpx.AsyncClient, worker: FakeWorker
    ) -> None:
        blob = vector_file(worker.description)
        answers = await asyncio.gather(
            *(http.post("/vectors?name=a", content=blob, headers=OCTETS) for _ in range(6))
        )
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
        assert {answer.json()["version"] for answer in answers} == {1}

    async def test_a_known_backbone_is_enough_for_an_import(
        self, http: httpx.AsyncClient, sessions: Sessions
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

        async def names(**params: str | int) -> list[str]:
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

    async def test_an_alias_is_taken_away_only_from_where_the_caller_believes_it(
        self, http: httpx.AsyncClient, worker: FakeWorker, sessions: Sessions
    ) -> None:
        for seed in range(2):
            await store_vector(sessions, worker.description, seed=seed)
        path = "/vectors/colours/aliases/prod"
        await http.put(path, json={"version": 2})
        refused = await http.delete(path, headers={"if-match": '"1"'})
        words = "Wanted colours@prod at version 1, found 2"
        assert (refused.status_code, refused.json()["detail"]) == (412, words)
        refused = await http.delete(path, params={"expected_version": 1})
        assert (refused.status_code, refused.json()["detail"]) == (409, words)
        both = await http.delete(path, params={"expected_version": 1}, headers={"if-match": '"2"'})
        assert both.status_code == 422
        assert (await http.get(path)).json()["version"] == 2
        assert (await http.delete(path, headers={"if-match": '"2"'})).status_code == 204
        assert (await http.delete(path, headers={"if-match": '"2"'})).status_code == 404

    @pytest.mark.parametrize(
        "headers",
        [{"if-match": '"1"', "if-none-match": "*"}, {"if-match": '"2"'}, {"if-none-match": "*"}],
    )
    async def test_expectations_that_contradict_each_other_are_refused(
        self,
        http: httpx.AsyncClient,
        worker: FakeWorker,
        sessions: Sessions,
        *,
        headers: dict[str, str],
    ) -> None:
        await store_vector(sessions, worker.description)
        path = "/vectors/colours/aliases/prod"
        body = {"version": 1, "expected_version": 1}
        refused = await http.put(path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-input")
        assert (await http.get(path)).status_code == 404

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


async def test_a_file_without_effect_is_refused(http: httpx.AsyncClient) -> None:
    tensors = make_tensors(0, num_layers=2, hidden_size=8)
    still = replace(
        tensors,
        attention_weights=np.zeros_like(tensors.attention_weights),
        mlp_weights=np.zeros_like(tensors.mlp_weights),
    )
    metadata = {"method": "m2iv", "backbone": "a" * 64}
    content = encode_vector_file(still, metadata=metadata)
    response = await http.post("/vectors?name=still", content=content, headers=OCTETS)
    assert (response.status_code, response.json()["code"]) == (422, "invalid-vector-file")
    assert "no effect" in response.json()["detail"]


async def test_a_kind_that_no_engine_carries_is_refused_by_its_name(
    http: httpx.AsyncClient,
) -> None:
    header, body = split_file(make_vector_file())
    metadata = header["__metadata__"]
    assert isinstance(metadata, dict)
    gated = forge_file({**header, "__metadata__": {**metadata, "kind": "gated-heads"}}, body)
    response = await http.post("/vectors?name=gated", content=gated, headers=OCTETS)
    told = response.json()
    assert (response.status_code, told["code"]) == (422, "invalid-vector-file")
    assert "wanted the kind shift, found gated-heads" in told["detail"]
    assert (await http.get("/vectors/gated")).status_code == 404
