import asyncio
from pathlib import Path

import httpx
import pytest

from tests.fakes.servers.scripted_server import ScriptedServer, problem, vector_json
from vlibrary_client import (
    AsyncClient,
    BusyError,
    Client,
    ConfigurationError,
    ConnectionFailedError,
    RequestTimeoutError,
)
from vlibrary_client.wire.connection import names_server

CLOSED = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def configuration(user_file: Path) -> Path:
    return user_file


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


@pytest.mark.parametrize(
    "url", ["library.test", "library.test:8000", "ftp://library.test", "http://", "http://[::1"]
)
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ConfigurationError, match="address"):
        Client(url)


@pytest.mark.parametrize("key", ["vlib_1_a\nKeep it", "clé", "vlib_1_a\t"])
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLIBRARY_API_KEY", key)
    with pytest.raises(ConfigurationError, match="a key on one line") as caught:
        AsyncClient()
    assert key not in str(caught.value)


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


def test_the_users_file_says_where_the_server_is(
    server: ScriptedServer, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration.write_text('url = "http://filed.test/"\nkey = "vlib_1_file"\n')
    with Client(transport=server.transport) as client:
        client.vectors.get("n")
    assert server.requests[-1].url.host == "filed.test"
    assert server.requests[-1].headers["authorization"] == "Bearer vlib_1_file"
    # Its key is told to no other server.
    with Client("http://other.test", transport=server.transport) as client:
        client.vectors.get("n")
    assert "authorization" not in server.requests[-1].headers
    monkeypatch.setenv("VLIBRARY_URL", "http://own.test")
    monkeypatch.setenv("VLIBRARY_API_KEY", "vlib_1_env")
    with Client(transport=server.transport) as client:
        client.vectors.get("n")
    assert server.requests[-1].url.host == "own.test"
    assert server.requests[-1].headers["authorization"] == "Bearer vlib_1_env"


def test_a_user_without_a_home_has_no_file(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("VLIBRARY_URL", raising=False)
    monkeypatch.delenv("VLIBRARY_API_KEY", raising=False)
    with Client(transport=server.transport) as client:
        client.vectors.get("n")
    assert str(server.requests[0].url) == "http://127.0.0.1:8000/vectors/n"
    assert not names_server(None, None)


def test_the_users_file_may_come_from_windows(configuration: Path, server: ScriptedServer) -> None:
    configuration.write_bytes(b'\xef\xbb\xbfurl = "http://filed.test"\r\nkey = "vlib_1_file"\r\n')
    with Client(transport=server.transport) as client:
        client.vectors.get("n")
    assert server.requests[-1].url.host == "filed.test"


def test_a_damaged_file_is_told_by_its_line(configuration: Path) -> None:
    configuration.write_text('url = "http://a"\nkey = vlib')
    with pytest.raises(ConfigurationError, match=r"config\.toml: .*line 2"):
        Client()


@pytest.mark.parametrize("text", ["url = 1", "uri = 'http://a'", "not toml", "\x00"])
def test_a_file_that_makes_no_sense_is_refused(configuration: Path, text: str) -> None:
    configuration.write_text(text)
    with pytest.raises(ConfigurationError, match=r"config\.toml"):
        Client()


def test_options_change_a_copy_on_the_same_connections() -> None:
    server = ScriptedServer([problem(503, "busy")])
    with Client(transport=server.transport, max_retries=0) as client:
        patient = client.with_options(max_retries=1, timeout=7.0)
        with pytest.raises(BusyError):
            patient.vectors.get("n")
        assert len(server.requests) == 2
        assert server.requests[-1].extensions["timeout"]["read"] == 7.0
        with pytest.raises(BusyError):
            client.vectors.get("n")
        assert len(server.requests) == 3
        assert server.requests[-1].extensions["timeout"]["read"] == 150.0


def test_so_does_the_async_client() -> None:
    server = ScriptedServer([httpx.ReadTimeout("late")])

    async def ask() -> None:
        async with AsyncClient(transport=server.async_transport) as client:
            await client.with_options(timeout=3.0).vectors.get("n")

    with pytest.raises(RequestTimeoutError):
        asyncio.run(ask())
    assert server.requests[-1].extensions["timeout"]["read"] == 3.0
