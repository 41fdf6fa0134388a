import asyncio

import httpx
import pytest

from tests.fakes.scripted_server import ScriptedServer, vector_json
from vlibrary_client import AsyncClient, Client, ConnectionFailedError

CLOSED = "http://127.0.0.1:1"


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer([httpx.Response(200, json=vector_json())])


def test_a_client_asks_the_server_and_sends_the_key_of_the_environment(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLIBRARY_URL", "http://library.test:81/")
    monkeypatch.setenv("VLIBRARY_API_KEY", "vlib_1_env")
    with Client(transport=server.transport) as client:
        client.vectors.get("n")
    assert str(server.requests[0].url) == "http://library.test:81/vectors/n"
    assert server.requests[0].headers["authorization"] == "Bearer vlib_1_env"


def test_what_the_program_gives_wins_over_the_environment(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLIBRARY_URL", "http://other.test")
    monkeypatch.setenv("VLIBRARY_API_KEY", "vlib_1_env")
    with Client("http://own.test", api_key="vlib_1_own", transport=server.transport) as client:
        client.vectors.get("n")
    assert server.requests[0].url.host == "own.test"
    assert server.requests[0].headers["authorization"] == "Bearer vlib_1_own"


def test_without_either_it_is_this_machine_and_no_key(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLIBRARY_URL", raising=False)
    monkeypatch.delenv("VLIBRARY_API_KEY", raising=False)
    with Client(transport=server.transport) as client:
        client.vectors.get("n")
    assert str(server.requests[0].url) == "http://127.0.0.1:8000/vectors/n"
    assert "authorization" not in server.requests[0].headers


def test_the_error_of_an_unreachable_server_names_it() -> None:
    with (
        Client(CLOSED, max_retries=0) as client,
        pytest.raises(ConnectionFailedError, match=CLOSED),
    ):
        client.vectors.get("n")


def test_so_does_the_async_one() -> None:
    async def ask() -> None:
        async with AsyncClient(CLOSED, max_retries=0) as client:
            await client.vectors.get("n")

    with pytest.raises(ConnectionFailedError, match=CLOSED):
        asyncio.run(ask())


def test_no_account_in_an_address_is_told() -> None:
    with (
        Client("http://name:secret@127.0.0.1:1", max_retries=0) as client,
        pytest.raises(ConnectionFailedError) as caught,
    ):
        client.vectors.get("n")
    assert "secret" not in str(caught.value)
