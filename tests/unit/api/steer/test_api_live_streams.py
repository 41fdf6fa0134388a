"""What only a real socket shows: when pieces arrive, and what hanging up does."""

import itertools
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from app.api.app import create_api
from app.api.dependencies import Services
from app.cli.processes.api import bound_listener, make_server
from app.cli.processes.ports import free_port
from app.core.settings import Settings
from app.library.database import make_engine
from app.main import make_services
from tests.fakes.servers.live_server import running, serving
from tests.fakes.servers.streams import events_in, live_api, live_worker
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.waiting import wait_until
from vlibrary_client import Client

NOWHERE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
BODY = {"prompt": "What colour?", "stream": True}


@pytest.fixture
def services(settings: Settings, worker: FakeWorker) -> Iterator[Services]:
    with live_worker(worker) as workers:
        yield make_services(settings, engine=make_engine(NOWHERE), workers=workers)


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    with live_api(services) as address:
        yield address


def test_the_first_delta_arrives_before_the_second_is_made(url: str, worker: FakeWorker) -> None:
    worker.is_stuck = True
    with httpx.stream("POST", f"{url}/steer/generate", json=BODY, timeout=120) as response:
        # An iterator that is let go closes the connection.
        chunks = response.iter_bytes()
        assert [data["text"] for _, data in events_in(next(chunks))] == ["p"]
        assert worker.running == 1


def test_hanging_up_frees_the_worker_and_the_place(
    url: str, worker: FakeWorker, services: Services
) -> None:
    worker.is_stuck = True
    with httpx.stream("POST", f"{url}/steer/generate", json=BODY, timeout=120) as response:
        chunks = response.iter_bytes()
        next(chunks)
        assert services.admission.in_flight == 1
    wait_until(lambda: worker.running == 0, seconds=60)
    wait_until(lambda: services.admission.in_flight == 0, seconds=60)


def test_a_client_that_leaves_its_block_frees_the_worker(url: str, worker: FakeWorker) -> None:
    worker.is_stuck = True
    with Client(url, timeout=120) as client:
        with client.steer.stream("What colour?") as stream:
            assert next(stream).text == "p"
        wait_until(lambda: worker.running == 0, seconds=60)
        worker.is_stuck = False
        with client.steer.stream("What colour?", logprobs=1) as stream:
            assert "".join(delta.text for delta in stream) == stream.answer.text == "plain"


def test_silence_is_broken_and_the_deadline_is_an_event(
    url: str,
    worker: FakeWorker,
    *,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {"request_timeout_seconds": 1.0, "early_stream_seconds": 0.1}
    hurried = services.settings.model_copy(update=changes)
    monkeypatch.setitem(services.__dict__, "settings", hurried)
    worker.is_stuck = True
    response = httpx.post(f"{url}/steer/generate", json=BODY, timeout=120)
    assert response.text.count(": ping\n\n") > 1
    (first, _), (last, problem) = events_in(response.content)
    assert (first, last) == ("delta", "error")
    assert problem["code"] == "deadline-exceeded"
    wait_until(lambda: worker.running == 0, seconds=60)


def test_a_server_that_stops_ends_its_streams(services: Services, worker: FakeWorker) -> None:
    worker.is_stuck = True
    with httpx.Client(timeout=120) as http:
        with serving(create_api(services)) as url:
            response = http.send(
                http.build_request("POST", f"{url}/steer/generate", json=BODY), stream=True
            )
            chunks = response.iter_bytes()
            next(chunks)
            began = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)
        assert time.monotonic() - began < 30
    wait_until(lambda: worker.running == 0, seconds=60)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux can tell")
def test_of_a_client_that_reads_nothing_no_connection_is_left(
    services: Services, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"request_timeout_seconds": 1.0, "port": free_port("127.0.0.1")}
    hurried = services.settings.model_copy(update=changes)
    monkeypatch.setitem(services.__dict__, "settings", hurried)
    monkeypatch.setattr("app.api.steer.streaming.SEND_SLACK_SECONDS", 0.2)
    monkeypatch.setattr(
        "app.api.routes.steering._Writer.events", lambda *_: itertools.repeat(b"x" * 2**16)
    )
    content = b'{"prompt": "q", "stream": true}'
    head = f"POST /steer/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}"
    server = make_server(create_api(services), hurried)
    listener = bound_listener(server.config, hurried)
    with running(server, listener), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        client.sendall(head.encode() + b"\r\ncontent-type: application/json\r\n\r\n" + content)
        wait_until(lambda: len(worker.generated) == 1, seconds=60)
        wait_until(lambda: services.admission.in_flight == 0, seconds=60)
        wait_until(lambda: not server.server_state.connections, seconds=30)
