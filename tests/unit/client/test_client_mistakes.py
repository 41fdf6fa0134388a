"""What programs pass by mistake, and what answers in place of a server, is told and never taken."""

import asyncio
import hashlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fakes.servers.scripted_server import ScriptedServer, vector_json
from vlibrary_client import (
    AsyncClient,
    Client,
    ConfigurationError,
    ConnectionFailedError,
    InvalidImageError,
    InvalidInputError,
    InvalidResponseError,
)

ODD = "a\udcfcb"
CALLS: dict[str, Callable[[Client], Any]] = {
    "delete": lambda client: client.vectors.delete("a@1"),
    "delete a data set": lambda client: client.datasets.delete("a"),
    "download": lambda client: client.vectors.download("a"),
    "get": lambda client: client.vectors.get("a"),
    "generate": lambda client: client.steer.generate("a"),
    "stream": lambda client: list(client.steer.stream("a")),
    "retrieve": lambda client: client.retrieve(text="a"),
}
STRANGE = {
    "a page": httpx.Response(200, html="<html>Log in</html>"),
    "nothing": httpx.Response(200),
    "a redirect": httpx.Response(302, headers={"location": "http://portal.test/"}),
}


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer([httpx.Response(200, json=vector_json())])


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.parametrize("call", CALLS)
def test_what_answers_in_place_of_a_server_is_told(call: str, answer: str) -> None:
    with (
        Client(transport=ScriptedServer([STRANGE[answer]]).transport, max_retries=0) as client,
        pytest.raises(InvalidResponseError),
    ):
        CALLS[call](client)


def test_it_is_told_by_what_it_said() -> None:
    for answer, words in (("a page", "200 with text/html"), ("a redirect", "to http://portal")):
        with (
            Client(transport=ScriptedServer([STRANGE[answer]]).transport) as client,
            pytest.raises(InvalidResponseError, match=words),
        ):
            client.vectors.delete("a@1")
    with (
        Client(transport=ScriptedServer([STRANGE["a page"]]).transport) as client,
        pytest.raises(InvalidResponseError, match=r"wanted JSON .* with text/html"),
    ):
        client.vectors.get("a@1")


def test_no_file_is_written_of_what_is_none(tmp_path: Path) -> None:
    server = ScriptedServer([STRANGE["a page"]])
    with Client(transport=server.transport) as client, pytest.raises(InvalidResponseError):
        client.vectors.download("a", to=tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    content = b"a vector"
    etag = hashlib.sha256(content).hexdigest()
    file = httpx.Response(200, content=content, headers={"etag": f'"{etag}"'})
    (tmp_path / "folder").mkdir()
    with (
        Client(transport=ScriptedServer([file]).transport) as client,
        pytest.raises(IsADirectoryError),
    ):
        client.vectors.download("a", to=tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda client: client.steer.generate("a", images="a.png"), "list of images, found str"),
        (lambda client: client.steer.generate("a", images=None), "images, found NoneType"),
        (lambda client: client.steer.generate("a", images=Path("a.png")), "list of images"),
        (lambda client: client.steer.generate("a", vector=Path("a")), "list of vectors"),
        (lambda client: client.steer.generate(ODD), "cannot be sent"),
        (lambda client: client.steer.generate("a", temperature=math.nan), "cannot be sent"),
        (lambda client: client.steer.generate("a", stop="END"), "list of texts that end"),
        (lambda client: client.steer.generate("a", backbone=object()), "found object"),
        (lambda client: client.train("a", "b", tags="tag"), "list of tags, found str"),
        (lambda client: client.combine("a", "bc", "d"), "list of vectors, found str"),
        (lambda client: client.vectors.compare("abc"), "list of vectors, found str"),
        (lambda client: client.keys.create("a", "read"), "list of scopes, found str"),
        (lambda client: client.retrieve(text="a", tags="tag"), "list of tags, found str"),
        (lambda client: client.retrieve(text=ODD), "cannot be sent"),
        (lambda client: client.vectors.get(ODD), "found 'a.udcfcb'"),
        (lambda client: client.vectors.list(name=ODD), "cannot be sent"),
        (lambda client: client.vectors.delete(""), "a reference or an id, found ''"),
        (lambda client: client.datasets.delete(".."), "a reference or an id"),
        (lambda client: client.vectors.get("a" * 70_000), "cannot be sent: URL too long"),
        (lambda client: client.vectors.upload(b"", name="a", description=9000 * "字"), "too long"),
    ],
    ids=itertools.count(),
)
def test_arguments_by_mistake_are_told_before_anything_is_sent(
    wrong: Callable[[Client], Any], words: str, server: ScriptedServer
) -> None:
    with (
        Client(transport=server.transport) as client,
        pytest.raises(InvalidInputError, match=words),
    ):
        wrong(client)
    assert server.requests == []


def test_numbers_of_numpy_are_numbers(server: ScriptedServer) -> None:
    with Client(transport=server.transport) as client, pytest.raises(InvalidResponseError):
        client.steer.generate("a", max_tokens=np.int64(3), temperature=np.float32(0.5))  # type: ignore[arg-type]  # of numpy
    assert b'"max_tokens":3,"temperature":0.5' in server.requests[0].content


def test_a_picture_that_was_closed_is_told_as_that(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    picture = Image.open(path)
    picture.close()
    with Client() as client, pytest.raises(InvalidImageError, match="closed"):
        client.steer.generate("a", images=[picture])


@pytest.mark.parametrize("seconds", [0, -1, math.nan, "5", None])
def test_what_is_no_time_to_wait_is_told(seconds: Any, server: ScriptedServer) -> None:  # noqa: ANN401 - by mistake
    with pytest.raises(ConfigurationError, match="more than 0 seconds"):
        Client(timeout=seconds)
    if seconds is not None:
        with (
            Client(transport=server.transport) as client,
            pytest.raises(ConfigurationError, match="more than 0 seconds"),
        ):
            client.with_options(timeout=seconds).vectors.get("a")


@pytest.mark.parametrize("seconds", [math.inf, 1e300])
def test_waiting_for_ever_is_as_long_as_a_system_can(
    seconds: float, server: ScriptedServer
) -> None:
    with Client(transport=server.transport, timeout=seconds) as client:
        client.vectors.get("n")
    assert server.requests[0].extensions["timeout"]["read"] == 366 * 24 * 3600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "wrong://127.0.0.1:9"),
        ("HTTPS_PROXY", "http://proxy:port"),
        ("NO_PROXY", "[::1]/x"),
        ("SSL_CERT_FILE", "/nonexistent"),
    ],
)
def test_an_environment_that_makes_no_sense_is_told(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        Client("https://library.test")
    with pytest.raises(ConfigurationError, match=name):
        AsyncClient("https://library.test")
    # This machine is reached without any of it.
    Client("http://127.0.0.1:1").close()


def test_the_reason_of_a_failed_connection_is_told() -> None:
    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:1", max_retries=0) as client:
            await client.vectors.get("n")

    with pytest.raises(ConnectionFailedError, match=r"\(ConnectError: .+\)"):
        asyncio.run(ask())
    with (
        Client("http://127.0.0.1:1", max_retries=0) as client,
        pytest.raises(ConnectionFailedError, match=r"\(ConnectError: .*refused\)"),
    ):
        client.vectors.get("n")


def test_another_event_loop_is_told_and_the_same_is_not() -> None:
    server = ScriptedServer([httpx.Response(200, json=vector_json())])
    client = AsyncClient(transport=server.async_transport)

    async def ask_twice() -> None:
        await client.vectors.get("a")
        await client.with_options(timeout=3).vectors.get("a")

    asyncio.run(ask_twice())
    with pytest.raises(ConfigurationError, match="make an AsyncClient in each"):
        asyncio.run(ask_twice())
