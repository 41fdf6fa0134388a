import inspect
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.fakes.servers.scripted_server import (
    DATASET_ID,
    VECTOR_ID,
    ScriptedServer,
    answer_json,
    dataset_json,
    vector_json,
)
from vlibrary_client import (
    AsyncClient,
    Client,
    CorruptDataError,
    Demonstrations,
    VectorUse,
)
from vlibrary_client.calls.arguments import VectorChoice
from vlibrary_client.client import (
    AsyncDatasets,
    AsyncKeys,
    AsyncSteering,
    Datasets,
    Keys,
    Steering,
)
from vlibrary_client.vectors import AsyncVectors, Vectors


@pytest.mark.parametrize(
    ("vector", "wanted"),
    [
        (None, None),
        ("auto", "auto"),
        (UUID(VECTOR_ID), VECTOR_ID),
        (VectorUse("a@1", 0.5), {"ref": "a@1", "strength": 0.5}),
        (["a", VectorUse(UUID(VECTOR_ID))], ["a", {"ref": VECTOR_ID, "strength": 1.0}]),
    ],
)
def test_the_vector_of_a_steered_request_has_four_spellings(
    vector: VectorChoice, wanted: object
) -> None:
    server = ScriptedServer([httpx.Response(200, json=answer_json())])
    with Client(transport=server.transport) as client:
        client.steer.generate("q", vector=vector)
    assert server.json()["vector"] == wanted


def test_a_result_steers_as_exactly_its_version() -> None:
    server = ScriptedServer(
        [
            httpx.Response(200, json=vector_json()),
            httpx.Response(200, json=dataset_json()),
            httpx.Response(200, json=answer_json()),
        ]
    )
    with Client(transport=server.transport) as client:
        vector = client.vectors.get("colours")
        dataset = client.datasets.get("colours")
        client.steer.generate(
            "q",
            vector=vector,
            demonstrations=Demonstrations(dataset=dataset, shots=4, split="validation"),
        )
    assert server.json()["vector"] == VECTOR_ID
    assert server.json()["demonstrations"] == {
        "dataset": DATASET_ID,
        "shots": 4,
        "selection": "random",
        "seed": 0,
        "split": "validation",
    }


def test_only_what_was_asked_for_is_sent() -> None:
    server = ScriptedServer([httpx.Response(200, json=answer_json()) for _ in range(2)])
    with Client(transport=server.transport) as client:
        client.steer.generate("q")
        assert server.json() == {"prompt": "q"}
        client.steer.generate("q", top_k=3, stop=("x",), backbone="pocket", vector=None)
    assert server.json() == {
        "prompt": "q",
        "top_k": 3,
        "stop": ["x"],
        "backbone": "pocket",
        "vector": None,
    }


def test_an_option_that_does_not_exist_is_refused_before_anything_is_sent() -> None:
    server = ScriptedServer([])
    with Client(transport=server.transport) as client, pytest.raises(TypeError, match="temprature"):
        client.steer.generate("q", temprature=1.0)  # type: ignore[call-arg]  # that is the point
    assert server.requests == []


def test_a_page_is_its_items() -> None:
    page = {"items": [vector_json(version=2), vector_json(version=1)], "next_cursor": None}
    server = ScriptedServer([httpx.Response(200, json=page)])
    with Client(transport=server.transport) as client:
        found = client.vectors.list()
    assert [vector.version for vector in found] == [2, 1]
    assert len(found) == 2


def test_listing_goes_on_to_the_last_page() -> None:
    server = ScriptedServer(
        [
            httpx.Response(200, json={"items": [vector_json(version=2)], "next_cursor": "c"}),
            httpx.Response(200, json={"items": [vector_json(version=1)], "next_cursor": None}),
        ]
    )
    with Client(transport=server.transport) as client:
        assert [vector.version for vector in client.vectors.iterate()] == [2, 1]
    assert server.requests[1].url.params["cursor"] == "c"


@pytest.mark.anyio
async def test_async_listing_goes_on_to_the_last_page() -> None:
    server = ScriptedServer(
        [
            httpx.Response(200, json={"items": [vector_json(version=2)], "next_cursor": "c"}),
            httpx.Response(200, json={"items": [vector_json(version=1)], "next_cursor": None}),
        ]
    )
    async with AsyncClient(transport=server.async_transport) as client:
        assert [vector.version async for vector in client.vectors.iterate()] == [2, 1]


def test_a_download_is_checked_and_written(tmp_path: Path) -> None:
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    server = ScriptedServer(
        [httpx.Response(200, content=b"12345", headers={"etag": f'"{digest}"'})]
    )
    with Client(transport=server.transport) as client:
        assert client.vectors.download("n", to=tmp_path / "v") == b"12345"
    assert (tmp_path / "v").read_bytes() == b"12345"


@pytest.mark.anyio
async def test_a_changed_download_is_refused(tmp_path: Path) -> None:
    server = ScriptedServer([httpx.Response(200, content=b"1234x", headers={"etag": '"ab"'})])
    async with AsyncClient(transport=server.async_transport) as client:
        with pytest.raises(CorruptDataError):
            await client.vectors.download("n", to=tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_calls_own_timeout_is_used() -> None:
    server = ScriptedServer([httpx.Response(200, json=answer_json())])
    with Client(transport=server.transport) as client:
        client.steer.generate("q", timeout=3.0)
        client.steer.generate("q")
    timeouts = [request.extensions["timeout"]["read"] for request in server.requests]
    assert timeouts == [3.0, 150.0]


@pytest.mark.parametrize(
    ("sync", "asynchronous"),
    [
        (Datasets, AsyncDatasets),
        (Keys, AsyncKeys),
        (Vectors, AsyncVectors),
        (Steering, AsyncSteering),
    ],
)
def test_both_clients_take_the_same_arguments(sync: type, asynchronous: type) -> None:
    def shape(cls: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(cls, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in methods}

    assert shape(sync) == shape(asynchronous)


def test_the_sdk_loads_nothing_of_the_server() -> None:
    script = (
        "import sys, vlibrary_client\n"
        "heavy = {'app', 'torch', 'fastapi', 'sqlalchemy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
