"""Where the environment names a proxy, calls to this machine go there directly all the same."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.fakes.servers.scripted_server import vector_json
from vlibrary_client import AsyncClient, Client, ConnectionFailedError

PAGE = {"items": [vector_json()], "next_cursor": None}


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(PAGE).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base has it
        """Says nothing."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached_without_the_proxy(port: int, host: str) -> None:
    with Client(f"http://{host}:{port}", max_retries=0) as client:
        assert len(client.vectors.list().items) == 1

    async def ask() -> int:
        async with AsyncClient(f"http://{host}:{port}", max_retries=0) as client:
            return len((await client.vectors.list()).items)

    assert asyncio.run(ask()) == 1


def test_other_machines_are_reached_through_it(port: int) -> None:
    # Nothing listens where the proxy should be.
    with (
        Client(f"http://other.example:{port}", max_retries=0) as client,
        pytest.raises(ConnectionFailedError),
    ):
        client.vectors.list()
