import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import httpx
import pytest

import vlibrary_client
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
    CorruptDataError,
    Demonstrations,
    VectorUse,
    errors,
)
from vlibrary_client.calls.arguments import VectorChoice


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


@pytest.mark.anyio
async def test_a_method_of_the_class_takes_either_client() -> None:
    job = httpx.Response(200, json=job_json("queued"))
    async with AsyncClient(transport=ScriptedServer([job]).async_transport) as client:
        assert (await AsyncClient.job(client, JOB_ID)).state == "queued"
    job = httpx.Response(200, json=job_json("queued"))
    with Client(transport=ScriptedServer([job]).transport) as waiting:
        assert Client.job(waiting, JOB_ID).state == "queued"


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


@pytest.mark.parametrize("part", ["datasets", "keys", "vectors", "steer"])
def test_both_clients_take_the_same_arguments(part: str) -> None:
    def methods(client: Client | AsyncClient) -> dict[str, Callable[..., object]]:
        found = inspect.getmembers(getattr(client, part), inspect.ismethod)
        return {name: method for name, method in found if not name.startswith("_")}

    waiting, awaited = methods(Client()), methods(AsyncClient())
    assert waiting.keys() == awaited.keys() > set()
    for name, method in waiting.items():
        other = awaited[name]
        assert inspect.signature(method).parameters == inspect.signature(other).parameters
        assert not inspect.iscoroutinefunction(method)
        assert inspect.iscoroutinefunction(other) or name in {"iterate", "stream"}
        assert method.__doc__


def test_what_takes_several_requests_may_be_awaited_as_well(tmp_path: Path) -> None:
    def server() -> ScriptedServer:
        vector, content = httpx.Response(200, json=vector_json()), b"a file"
        etag = f'"{sha256(content).hexdigest()}"'
        return ScriptedServer(
            [vector, httpx.Response(200, content=content, headers={"etag": etag})]
        )

    async def export() -> Path:
        async with AsyncClient(transport=server().async_transport) as client:
            return await client.vectors.export("colours", tmp_path / "awaited")

    with Client(transport=server().transport) as client:
        made = client.vectors.export("colours", tmp_path / "waited")
    assert [path.name for path in (made, asyncio.run(export()))] == ["waited", "awaited"]
    for name in ("vector.safetensors", "vector_config.json", "README.md"):
        waited, awaited = (tmp_path / kind / name for kind in ("waited", "awaited"))
        assert waited.read_bytes() == awaited.read_bytes() != b""


def test_every_error_can_be_named() -> None:
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    for kind in kinds:
        if issubclass(kind, errors.VLibraryError):
            assert getattr(vlibrary_client, kind.__name__) is kind


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
