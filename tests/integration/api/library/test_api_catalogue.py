import httpx
import pytest

from tests.fakes.servers.worker import FakeWorker
from tests.fakes.training import Sessions, store_vector

pytestmark = pytest.mark.anyio

MEASUREMENT = {
    "dataset": "easy-vqa",
    "split": "test",
    "scorer": "exact-match",
    "items": 50,
    "accuracy": 0.8,
    "low": 0.7,
    "high": 0.9,
    "zero_shot": 0.3,
}


@pytest.fixture
async def stored(worker: FakeWorker, sessions: Sessions) -> list[str]:
    records = [
        await store_vector(sessions, worker.description, name=name, seed=seed)
        for seed, name in enumerate(["a", "a", "b"])
    ]
    return [str(record.id) for record in records]


async def names(http: httpx.AsyncClient, **params: object) -> list[str]:
    answer = await http.get("/vectors", params=params)  # type: ignore[arg-type]  # plain values
    assert answer.status_code == 200, answer.text
    return [f"{item['name']}@{item['version']}" for item in answer.json()["items"]]


async def test_filters_reach_the_library(http: httpx.AsyncClient, stored: list[str]) -> None:
    await http.patch("/vectors/a@1", json={"description": "Round gears", "tags": ["x", "y"]})
    assert await names(http, text="GEARS round") == ["a@1"]
    assert await names(http, tag=["x", "y"]) == ["a@1"]
    assert await names(http, tag=["x", "stored"]) == []
    assert await names(http, created_after="2000-01-01T00:00:00Z") == ["b@1", "a@2", "a@1"]
    assert await names(http, created_before="2000-01-01T00:00:00Z") == []
    assert (await http.post("/vectors/b/evaluations", json=MEASUREMENT)).status_code == 201
    assert await names(http, min_accuracy=0.8, min_gain=0.5) == ["b@1"]
    first = (await http.get("/vectors", params={"limit": 1, "name": "a"})).json()
    other = await http.get("/vectors", params={"cursor": first["next_cursor"]})
    assert (other.status_code, other.json()["code"]) == (422, "invalid-input")
    assert len(stored) == 3


@pytest.mark.parametrize(
    "params",
    [{"nmae": "a"}, {"created_after": "2000-01-01T00:00:00"}, {"min_gain": "nan"}, {"text": "\0"}],
)
async def test_a_filter_that_cannot_be_meant_is_refused(
    http: httpx.AsyncClient, params: dict[str, str]
) -> None:
    assert (await http.get("/vectors", params=params)).status_code == 422


async def test_many_are_changed_with_an_outcome_each(
    http: httpx.AsyncClient, stored: list[str]
) -> None:
    tagged = {"action": "tag", "vectors": ["a@1", stored[2], "none"], "tags": ["new"]}
    body = (await http.post("/vectors/batch", json=tagged)).json()
    assert [item["ok"] for item in body["items"]] == [True, True, False]
    assert body["items"][2]["error"]["code"] == "not-found"
    assert (body["num_failed"], body["items"][0]["version"]) == (1, 1)
    assert await names(http, tag="new") == ["b@1", "a@1"]
    untagged = {**tagged, "action": "untag", "vectors": ["a@1"]}
    await http.post("/vectors/batch", json=untagged)
    assert await names(http, tag="new") == ["b@1"]
    retired = {"action": "set-status", "vectors": ["b"], "status": "retired"}
    await http.post("/vectors/batch", json=retired)
    assert await names(http, status="retired") == ["b@1"]
    gone = {"action": "delete", "vectors": ["a@1", "a@2"]}
    assert (await http.post("/vectors/batch", json=gone)).json()["num_failed"] == 0
    assert await names(http) == ["b@1"]
    for wrong in ({**gone, "tags": ["x"]}, {**tagged, "tags": []}, {**retired, "status": None}):
        assert (await http.post("/vectors/batch", json=wrong)).status_code == 422


async def test_vectors_are_compared(http: httpx.AsyncClient, stored: list[str]) -> None:
    for ref, accuracy in (("a@1", 0.75), ("b", 0.85)):
        measured = {**MEASUREMENT, "accuracy": accuracy}
        await http.post(f"/vectors/{ref}/evaluations", json=measured)
    answer = await http.get("/vectors/compare", params={"ref": ["a@1", "a@2", "b"]})
    body = answer.json()
    assert [item["id"] for item in body["vectors"]] == stored
    (found,) = body["comparisons"]
    assert [item and item["accuracy"] for item in found["results"]] == [0.75, None, 0.85]
    assert (found["best"], found["is_clear"]) == (2, False)
    assert [row[i] for i, row in enumerate(body["similarity"])] == pytest.approx([1, 1, 1])
    for refs, status in ((["a@1"], 422), (["a", "a@2"], 422), (["a", "none"], 404)):
        refused = await http.get("/vectors/compare", params={"ref": refs})
        assert refused.status_code == status


async def test_a_sum_is_stored_once(http: httpx.AsyncClient, stored: list[str]) -> None:
    body = {"name": "sum", "parts": [{"vector": "a", "weight": 0.5}, {"vector": "b"}]}
    for ref, accuracy in (("a", 0.75), ("b", 0.85)):
        measured = {**MEASUREMENT, "accuracy": accuracy}
        await http.post(f"/vectors/{ref}/evaluations", json=measured)
    made, again = [await http.post("/vectors/combine", json=body) for _ in range(2)]
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json()["id"] == again.json()["id"]
    assert made.json()["parents"] == stored[1:]
    assert (made.json()["best_part"], made.json()["status"]) == (stored[2], "unproven")
    assert (await http.get("/vectors/sum")).json()["method"] == "m2iv-sum"


async def test_an_alias_is_moved_by_its_entity_tag(
    http: httpx.AsyncClient, stored: list[str]
) -> None:
    assert len(stored) == 3

    async def put(version: int, **headers: str) -> tuple[int, str | None]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await http.put("/vectors/a/aliases/prod", json={"version": version}, headers=named)
        return answer.status_code, answer.headers.get("etag")

    assert await put(1, if_none_match="*") == (200, '"1"')
    assert await put(2, if_none_match="*") == (412, None)
    assert await put(1, if_match="*") == (200, '"1"')
    assert await put(2, if_match='"2"') == (412, None)
    found = await http.get("/vectors/a/aliases/prod")
    assert (found.headers["etag"], found.json()["version"]) == ('"1"', 1)
    assert await put(2, if_match=found.headers["etag"]) == (200, '"2"')
    for malformed in ("2", "W/2", '*, "2"', '"1" "2"', '"1",', ""):
        assert (await put(1, if_match=malformed))[0] == 422
    for other in ('W/"1"', '"02"', '"abc"', '""', '"1", W/"4" ,"3"'):
        assert await put(1, if_match=other) == (412, None)
    # As it comes back through a proxy that compresses.
    for one in ('"1", "2"', 'W/"2"', '"1", W/"2"'):
        assert await put(2, if_match=one) == (200, '"2"')
    assert (await http.get("/vectors/a/aliases/none")).status_code == 404


async def test_any_entity_tag_is_the_one_of_an_alias_that_there_is(
    http: httpx.AsyncClient, stored: list[str]
) -> None:
    assert len(stored) == 3
    path, some = "/vectors/a/aliases/prod", {"if-match": "*"}
    refused = await http.put(path, json={"version": 1}, headers=some)
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    # Without it, that would be no success either.
    assert (await http.delete(path, headers=some)).status_code == 404
    assert (
        await http.put("/vectors/none/aliases/prod", json={"version": 1}, headers=some)
    ).status_code == 404
    assert (await http.get(path)).status_code == 404
    await http.put(path, json={"version": 1})
    assert (await http.put(path, json={"version": 2}, headers=some)).status_code == 200
    for expected, status in ((0, 422), (1, 409), (2, 200)):
        body = {"version": 1, "expected_version": expected}
        assert (await http.put(path, json=body, headers=some)).status_code == status
    assert (await http.delete(path, headers={"if-match": 'W/"2"'})).status_code == 412
    assert (await http.delete(path, headers=some)).status_code == 204


async def test_old_versions_and_aliases_go(http: httpx.AsyncClient, stored: list[str]) -> None:
    await http.put("/vectors/a/aliases/prod", json={"version": 1})
    assert (await http.post("/vectors/a/prune", json={"keep_last": 1})).json()["items"] == []
    aliases = (await http.get("/vectors/a/aliases")).json()["items"]
    assert [(item["alias"], item["version"]) for item in aliases] == [("latest", 2), ("prod", 1)]
    assert (await http.delete("/vectors/a/aliases/prod")).status_code == 204
    assert (await http.delete("/vectors/a/aliases/prod")).status_code == 404
    assert (await http.delete("/vectors/a/aliases/latest")).status_code == 422
    assert (await http.get("/vectors/none/aliases")).status_code == 404
    pruned = (await http.post("/vectors/a/prune", json={"keep_last": 1})).json()["items"]
    assert [item["id"] for item in pruned] == [stored[0]]
