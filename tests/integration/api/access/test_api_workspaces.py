"""Two tenants: what one has does not exist for the other, on any route."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.core.settings import Settings
from app.library.workspaces import in_workspace
from app.main import create_app
from tests.fakes.api_calls import OCTETS, parquet
from tests.fakes.servers.worker import FakeWorker, embedding_of
from tests.fakes.tenants import key_headers
from tests.fakes.training import Sessions, store_vector, vector_file

pytestmark = pytest.mark.anyio

SHARE = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
MEASURED = {"dataset": "d", "split": "test", "scorer": "exact", "items": 4, **SHARE}
QUESTION = "Which part?"
# Of the service as a whole, which nobody stored.
SHARED = {
    "/",
    "/docs",
    "/docs/{name}",
    "/livez",
    "/readyz",
    "/openapi.json",
    "/backbones",
    "/metrics",
    "/v1/embeddings",
}
# Where nothing of anybody can be named; what they make or tell is the caller's own.
OWN = {
    ("POST", "/datasets"),
    ("POST", "/vectors"),
    ("POST", "/keys"),
    ("GET", "/datasets"),
    ("GET", "/vectors"),
    ("GET", "/train"),
    ("GET", "/keys"),
    ("GET", "/audit"),
    ("GET", "/v1/models"),
    ("POST", "/retrieve"),
    ("POST", "/vectors/batch"),
}


@dataclass(frozen=True)
class Possessions:
    """What the first tenant has."""

    vector_id: str
    dataset_id: str
    job_id: str
    key_id: str
    headers: dict[str, str]


@pytest.fixture
async def north(
    http: httpx.AsyncClient, *, sessions: Sessions, worker: FakeWorker, tmp_path: Path
) -> Possessions:
    headers = await key_headers(sessions, "north")
    vector = await store_vector(
        in_workspace(sessions, "north"),
        worker.description,
        name="gears",
        key=embedding_of(None, QUESTION),
    )
    uploaded = await http.post(
        "/datasets?name=d", content=parquet(tmp_path), headers=headers | OCTETS
    )
    job = await http.post("/train", json={"name": "gears", "dataset": "d"}, headers=headers)
    alias = await http.put("/vectors/gears/aliases/prod", json={"version": 1}, headers=headers)
    assert [one.status_code for one in (uploaded, job, alias)] == [201, 202, 200]
    return Possessions(
        vector_id=str(vector.id),
        dataset_id=uploaded.json()["id"],
        job_id=job.json()["id"],
        key_id=headers["authorization"].split("_")[1],
        headers=headers,
    )


@pytest.fixture
async def south(sessions: Sessions) -> dict[str, str]:
    return await key_headers(sessions, "south")


def attempts(north: Possessions, backbone: str) -> Iterator[tuple[str, str, str, Any]]:
    """Every request that names a thing of the first tenant: method, route, path and body."""
    refs = (north.vector_id, "gears", "gears@1", "gears@prod")
    for ref in refs:
        yield "GET", "/vectors/{ref}", f"/vectors/{ref}", None
        yield "GET", "/vectors/{ref}/file", f"/vectors/{ref}/file", None
        yield "PATCH", "/vectors/{ref}", f"/vectors/{ref}", {"description": "mine"}
        yield "DELETE", "/vectors/{ref}", f"/vectors/{ref}", None
        yield "POST", "/vectors/{ref}/evaluations", f"/vectors/{ref}/evaluations", MEASURED
        yield "GET", "/vectors/compare", f"/vectors/compare?ref={ref}&ref={ref}", None
        parts = [{"vector": ref, "weight": 1}, {"vector": ref, "weight": 2}]
        yield "POST", "/vectors/combine", "/vectors/combine", {"name": "sum", "parts": parts}
        steered = {"prompt": QUESTION, "vector": ref}
        yield "POST", "/steer/generate", "/steer/generate", steered
        model = f"{backbone}:{ref}"
        yield "GET", "/v1/models/{model}", f"/v1/models/{model}", None
        message = {"role": "user", "content": QUESTION}
        path = "/v1/chat/completions"
        yield "POST", path, path, {"model": model, "messages": [message]}
        yield "POST", "/v1/completions", "/v1/completions", {"model": model, "prompt": "x"}
        yield "POST", "/v1/responses", "/v1/responses", {"model": model, "input": "x"}
    for alias in ("prod", "latest"):
        path = f"/vectors/gears/aliases/{alias}"
        yield "GET", "/vectors/{name}/aliases/{alias}", path, None
    path = "/vectors/gears/aliases/prod"
    yield "PUT", "/vectors/{name}/aliases/{alias}", path, {"version": 1}
    yield "DELETE", "/vectors/{name}/aliases/{alias}", path, None
    yield "GET", "/vectors/{name}/aliases", "/vectors/gears/aliases", None
    yield "POST", "/vectors/{name}/prune", "/vectors/gears/prune", {"keep_last": 1}
    for ref in (north.dataset_id, "d"):
        yield "GET", "/datasets/{ref}", f"/datasets/{ref}", None
        yield "DELETE", "/datasets/{ref}", f"/datasets/{ref}", None
        yield "POST", "/train", "/train", {"name": "mine", "dataset": ref}
        joined = {"name": "mine", "dataset": ref, "vectors": ["gears", "gears@1"]}
        yield "POST", "/train/combine", "/train/combine", joined
        judged = {"vector": "gears", "dataset": ref}
        yield "POST", "/evaluations", "/evaluations", judged
        shown = {"prompt": "x", "demonstrations": {"dataset": ref, "shots": 1}}
        yield "POST", "/steer/generate", "/steer/generate", shown
    for path in ("/train/{job_id}", "/train/{job_id}/events"):
        yield "GET", path, path.format(job_id=north.job_id), None
    yield "POST", "/train/{job_id}/cancel", f"/train/{north.job_id}/cancel", None
    yield "DELETE", "/keys/{key_id}", f"/keys/{north.key_id}", None


async def test_a_thing_of_another_workspace_is_not_found_on_any_route(
    api: FastAPI, *, http: httpx.AsyncClient, north: Possessions, south: dict[str, str]
) -> None:
    tried = set()
    for method, route, path, body in attempts(north, "fake-a"):
        response = await http.request(method, path, json=body, headers=south)
        assert response.status_code == 404, (method, path, body, response.text)
        tried.add((method, route))
    routed = {
        (method, context.path_format.replace(":path", ""))
        for context in iter_route_contexts(api.routes)
        for method in context.methods or ()
        if context.path_format is not None and context.path_format not in SHARED
    }
    assert routed == tried | OWN


async def test_the_same_requests_reach_what_is_the_callers_own(
    http: httpx.AsyncClient, north: Possessions
) -> None:
    for method, _, path, body in attempts(north, "fake-a"):
        if method == "GET" and "events" not in path:
            response = await http.request(method, path, json=body, headers=north.headers)
            # The same vector twice is refused for that alone.
            assert response.status_code in {200, 422}, (path, response.text)


async def test_listings_and_searches_tell_of_the_own_workspace(
    http: httpx.AsyncClient, *, north: Possessions, south: dict[str, str]
) -> None:
    for path in ("/vectors", "/vectors?text=gears", "/datasets", "/train", "/audit"):
        own = (await http.get(path, headers=north.headers)).json()["items"]
        foreign = (await http.get(path, headers=south)).json()["items"]
        assert own, path
        # The making of the other tenant's own key is all that it did.
        assert [item.get("action") for item in foreign] == ["key.create"] * (path == "/audit")
    keys = {}
    for name, headers in (("north", north.headers), ("south", south)):
        keys[name] = (await http.get("/keys", headers=headers)).json()["items"]
        assert [key["workspace"] for key in keys[name]] == [name]
    models = (await http.get("/v1/models", headers=south)).json()["data"]
    assert [model["id"] for model in models] == ["fake-a"]
    query = {"embedding": embedding_of(None, QUESTION)}
    found = (await http.post("/retrieve", json=query, headers=north.headers)).json()
    assert [match["vector"]["id"] for match in found["matches"]] == [north.vector_id]
    found = (await http.post("/retrieve", json=query, headers=south)).json()
    assert (found["matches"], found["abstained"]) == ([], True)
    steered = {"prompt": QUESTION, "vector": "auto"}
    answer = (await http.post("/steer/generate", json=steered, headers=north.headers)).json()
    assert [use["name"] for use in answer["applied"]] == ["gears"]
    answer = (await http.post("/steer/generate", json=steered, headers=south)).json()
    assert (answer["applied"], answer["retrieval"]["score"]) == ([], None)
    batch = {"action": "delete", "vectors": [north.vector_id, "gears"]}
    outcome = (await http.post("/vectors/batch", json=batch, headers=south)).json()
    assert [item["error"]["code"] for item in outcome["items"]] == ["not-found"] * 2
    assert (await http.get("/vectors/gears", headers=north.headers)).status_code == 200


@pytest.mark.usefixtures("north")
async def test_what_is_preferred_is_looked_for_in_the_own_workspace(
    http: httpx.AsyncClient, *, south: dict[str, str], sessions: Sessions, worker: FakeWorker
) -> None:
    for name in ("english", "spanish"):
        await store_vector(
            in_workspace(sessions, "south"),
            worker.description,
            name=name,
            key=embedding_of(None, QUESTION),
        )
    for prefer in ("gears", "prod", "nobody"):
        asked = {"text": QUESTION, "prefer": prefer}
        answer = await http.post("/retrieve", json=asked, headers=south)
        assert answer.status_code == 404, (prefer, answer.text)


async def test_what_is_made_lies_in_the_own_workspace(
    http: httpx.AsyncClient,
    *,
    north: Possessions,
    south: dict[str, str],
    worker: FakeWorker,
    tmp_path: Path,
) -> None:
    blob = vector_file(worker.description, seed=0)
    made = await http.post("/vectors?name=gears", content=blob, headers=south | OCTETS)
    assert (made.status_code, made.json()["version"]) == (201, 1)
    assert made.json()["id"] != north.vector_id
    content = parquet(tmp_path)
    uploaded = await http.post("/datasets?name=d", content=content, headers=south | OCTETS)
    assert uploaded.status_code == 201
    assert uploaded.json()["id"] != north.dataset_id
    # Its file is another one as well.
    deleted = await http.delete("/datasets/d", headers=south)
    assert deleted.status_code == 204
    kept = await http.get("/datasets/d", headers=north.headers)
    assert kept.json()["id"] == north.dataset_id
    key = (await http.post("/keys", json={"name": "k", "scopes": ["read"]}, headers=south)).json()
    assert key["workspace"] == "south"
    shown = {"authorization": f"Bearer {key['key']}"}
    assert len((await http.get("/vectors", headers=shown)).json()["items"]) == 1


async def test_a_cursor_leads_nowhere_else(
    http: httpx.AsyncClient,
    *,
    north: Possessions,
    south: dict[str, str],
    sessions: Sessions,
    worker: FakeWorker,
) -> None:
    for seed in range(2):
        await store_vector(
            in_workspace(sessions, "north"), worker.description, name="more", seed=seed
        )
    page = (await http.get("/vectors?limit=1", headers=north.headers)).json()
    path = f"/vectors?limit=1&cursor={page['next_cursor']}"
    assert len((await http.get(path, headers=north.headers)).json()["items"]) == 1
    assert (await http.get(path, headers=south)).json()["items"] == []


async def test_the_policy_of_the_service_is_its_own_whoever_asks(
    settings: Settings, *, worker: FakeWorker, sessions: Sessions, south: dict[str, str]
) -> None:
    await store_vector(sessions, worker.description, name="polite")
    policy = [{"ref": "polite", "strength": 0.5}]
    given = {**settings.model_dump(), "policy_vectors": policy}
    app = create_app(Settings.model_validate(given), workers=worker.client())
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        answer = await client.post("/steer/generate", json={"prompt": "x"}, headers=south)
        assert [use["source"] for use in answer.json()["applied"]] == ["policy"]
        named = await client.get("/vectors/polite", headers=south)
        assert named.status_code == 404
