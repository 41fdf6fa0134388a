from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.fakes.servers.scripted_server import (
    DATASET_ID,
    JOB_ID,
    VECTOR_ID,
    ScriptedServer,
    answer_json,
    dataset_json,
    job_json,
    vector_json,
)
from vlibrary_client import (
    AsyncClient,
    Client,
    InvalidInputError,
)

VECTORS_PAGE = {"items": [vector_json()], "next_cursor": None}


RETRIEVAL = {
    "matches": [{"vector": vector_json(), "score": 0.9, "threshold": 0.5}],
    "abstained": False,
    "reason": None,
    "epoch": 4,
    "space": "s",
}


def parquet(tmp_path: Path) -> str:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"PAR1")
    return str(path)


CALLS: dict[str, tuple[Callable[[Any, Path], Any], str, Any, Any]] = {
    "upload a data set": (
        lambda c, tmp: c.datasets.upload(parquet(tmp), name="colours", description="d"),
        "POST /datasets?name=colours&description=d",
        dataset_json(),
        lambda r: (str(r.id), r.num_items) == (DATASET_ID, 2),
    ),
    "get a data set": (
        lambda c, _: c.datasets.get("a/b"),
        "GET /datasets/a%2Fb",
        dataset_json(),
        lambda r: r.name == "colours",
    ),
    "list data sets": (
        lambda c, _: c.datasets.list(limit=3, cursor="x"),
        "GET /datasets?limit=3&cursor=x",
        {"items": [dataset_json()], "next_cursor": "y"},
        lambda r: (len(r.items), r.next_cursor) == (1, "y"),
    ),
    "train": (
        lambda c, _: c.train("colours", UUID(DATASET_ID), epochs=2),
        "POST /train",
        job_json(),
        lambda r: (
            (str(r.id), r.name, r.state, r.is_final, r.vector)
            == (JOB_ID, "colours", "queued", False, None)
        ),
    ),
    "get a job": (
        lambda c, _: c.job(JOB_ID),
        f"GET /train/{JOB_ID}",
        job_json("succeeded", seconds=2.5),
        lambda r: (r.vector.ref, r.seconds, r.progress, r.error) == ("colours@3", 2.5, None, None),
    ),
    "list jobs": (
        lambda c, _: c.jobs(state="failed"),
        "GET /train?state=failed&limit=50",
        {"items": [job_json("failed")], "next_cursor": None},
        lambda r: r.items[0].state == "failed",
    ),
    "get a vector": (
        lambda c, _: c.vectors.get("colours@prod"),
        "GET /vectors/colours@prod",
        vector_json(),
        lambda r: (r.ref, r.backbone.num_layers, r.tags) == ("colours@3", 2, ("x",)),
    ),
    "list vectors": (
        lambda c, _: c.vectors.list(name="n", tag="t", backbone="b", status="ready"),
        "GET /vectors?name=n&tag=t&backbone=b&status=ready&limit=50",
        VECTORS_PAGE,
        lambda r: r.items[0].name == "colours",
    ),
    "import a vector": (
        lambda c, _: c.vectors.upload(b"file", name="n", tags=("a", "b")),
        "POST /vectors?name=n&tags=a&tags=b",
        vector_json(),
        lambda r: r.version == 3,
    ),
    "change a vector": (
        lambda c, _: c.vectors.update("n@3", description="new", tags=()),
        "PATCH /vectors/n@3",
        vector_json(),
        lambda r: r.version == 3,
    ),
    "delete a vector": (
        lambda c, _: c.vectors.delete(UUID(VECTOR_ID)),
        f"DELETE /vectors/{VECTOR_ID}",
        None,
        lambda r: r is None,
    ),
    "set an alias": (
        lambda c, _: c.vectors.set_alias("n", "prod", 3, expected_version=2),
        "PUT /vectors/n/aliases/prod",
        {"name": "n", "alias": "prod", "version": 3},
        lambda r: r.version == 3,
    ),
    "retrieve": (
        lambda c, _: c.retrieve(image=b"png", text="what?", k=2),
        "POST /retrieve",
        RETRIEVAL,
        lambda r: (r.matches[0].vector.name, r.abstained) == ("colours", False),
    ),
    "steer": (
        lambda c, _: c.steer.generate("what?", images=[b"png"], vector="auto", baseline=True),
        "POST /steer/generate",
        answer_json(),
        lambda r: (r.text, r.baseline.text, r.applied[0].ref) == ("red", "blue", "colours@3"),
    ),
    "ask for readiness": (
        lambda c, _: c.ready(),
        "GET /readyz",
        {"status": "ready", "checks": {"database": {"ok": True, "detail": ""}}},
        lambda r: r.checks["database"].ok,
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.anyio
async def test_every_call_asks_the_same_of_the_server_in_both_clients(
    name: str, kind: str, tmp_path: Path
) -> None:
    call, wanted, body, check = CALLS[name]
    response = httpx.Response(204) if body is None else httpx.Response(200, json=body)
    server = ScriptedServer([response])
    if kind == "sync":
        with Client(transport=server.transport) as client:
            result = call(client, tmp_path)
    else:
        async with AsyncClient(transport=server.async_transport) as async_client:
            result = await call(async_client, tmp_path)
    request = server.requests[0]
    assert f"{request.method} {request.url.raw_path.decode()}" == wanted
    assert check(result)


def test_a_file_is_sent_with_its_length_and_type(tmp_path: Path) -> None:
    server = ScriptedServer([httpx.Response(200, json=dataset_json())])
    with Client(transport=server.transport) as client:
        client.datasets.upload(parquet(tmp_path), name="n")
    assert server.bodies == [b"PAR1"]
    headers = server.requests[0].headers
    assert headers["content-length"] == "4"
    assert headers["content-type"] == "application/vnd.apache.parquet"


@pytest.mark.anyio
async def test_the_async_client_sends_files_the_same_way(tmp_path: Path) -> None:
    server = ScriptedServer([httpx.Response(200, json=dataset_json())])
    async with AsyncClient(transport=server.async_transport) as client:
        await client.datasets.upload(parquet(tmp_path), name="n")
    assert server.bodies == [b"PAR1"]
    assert server.requests[0].headers["content-length"] == "4"
    assert "transfer-encoding" not in server.requests[0].headers


def test_what_is_no_id_of_a_job_is_refused_before_anything_is_sent() -> None:
    server = ScriptedServer([])
    with (
        Client(transport=server.transport) as client,
        pytest.raises(InvalidInputError, match="UUID"),
    ):
        client.job("0")
    assert not server.requests
