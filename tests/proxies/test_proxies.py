"""Streams behind real proxies that compress: pieces arrive as they are made, and waiting is safe.

The programs come from Debian's packages; `make proxies` fetches them.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.api.dependencies import Services
from app.core.settings import Settings
from app.library.database import make_engine
from app.main import make_services
from tests.fakes.servers.proxies import proxied
from tests.fakes.servers.streams import live_api, live_worker
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.proxies

NOWHERE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
NATIVE = ("/steer/generate", {"prompt": "What colour?", "stream": True})
OPENAI = (
    "/v1/chat/completions",
    {"model": "fake-a", "messages": [{"role": "user", "content": "What?"}], "stream": True},
)


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker(is_stuck=True)


@pytest.fixture
def services(tmp_path: Path, worker: FakeWorker) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path, early_stream_seconds=0.5, request_timeout_seconds=60)
    with live_worker(worker) as client:
        yield make_services(settings, engine=make_engine(NOWHERE), workers=client)


@pytest.fixture(params=[("nginx",), ("nginx", "nginx"), ("caddy",), ("caddy", "nginx", "nginx")])
def url(request: pytest.FixtureRequest, services: Services, tmp_path: Path) -> Iterator[str]:
    with ExitStack() as stack:
        address = stack.enter_context(live_api(services))
        for place, kind in enumerate(reversed(request.param)):
            folder = tmp_path / f"{kind}-{place}"
            address = stack.enter_context(proxied(kind, address, folder))
        yield address


@pytest.mark.parametrize(("path", "body"), [NATIVE, OPENAI])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_piece_arrives_before_the_next_is_made(
    url: str, worker: FakeWorker, *, path: str, body: dict[str, object], encoding: str
) -> None:
    headers = {"accept-encoding": encoding}
    with (
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        client.stream("POST", path, json=body, headers=headers) as reply,
    ):
        assert reply.status_code == 200
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["content-encoding"] == "identity"
        text = ""
        for piece in reply.iter_text():
            text += piece
            if '"p"' in text and worker.is_stuck:
                # The worker writes its second piece only from now on.
                worker.is_stuck = False
                worker.release()
        assert "event: answer" in text or "[DONE]" in text


@pytest.mark.parametrize(("path", "body"), [NATIVE, OPENAI])
def test_a_prompt_may_wait_for_longer_than_a_proxy_does(
    url: str, worker: FakeWorker, *, path: str, body: dict[str, object]
) -> None:
    worker.sticks_at = 0
    # The proxies give up on connections that say nothing for ten seconds.
    threading.Timer(12, worker.release).start()
    reply = httpx.post(f"{url}{path}", json=body, timeout=30, trust_env=False)
    assert reply.status_code == 200
    assert reply.text.startswith(": ping\n\n")
    assert "event: answer" in reply.text or "[DONE]" in reply.text


def test_what_fails_after_the_beginning_is_an_event(url: str, worker: FakeWorker) -> None:
    worker.sticks_at, worker.breaks_after = 0, 0
    threading.Timer(4, worker.release).start()
    path, body = NATIVE
    reply = httpx.post(f"{url}{path}", json=body, timeout=30, trust_env=False)
    (last,) = [line for line in reply.text.splitlines() if line.startswith("data:")]
    assert json.loads(last.removeprefix("data:"))["code"] == "worker-unavailable"
    assert "event: error" in reply.text
