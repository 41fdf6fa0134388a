import itertools
import json
import time
from collections.abc import Iterator

import httpx
import pytest
from httpx_sse import ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.servers.scripted_server import (
    JOB_ID,
    Pieces,
    Scripted,
    ScriptedServer,
    job_json,
    problem,
)
from vlibrary_client import (
    AsyncClient,
    Client,
    ConnectionFailedError,
    InvalidResponseError,
    WaitTimeoutError,
    streams,
)
from vlibrary_client.errors import NotFoundError
from vlibrary_client.streams import MAX_SILENT_RECONNECTS, read_job_event
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_self: AsyncTransport, _seconds: float) -> None:
        return None

    monkeypatch.setattr(SyncTransport, "sleep", lambda _self, _seconds: None)
    monkeypatch.setattr(AsyncTransport, "sleep", at_once)


@pytest.mark.parametrize(
    "event",
    [
        ServerSentEvent(id="x", event="progress", data="{}"),
        ServerSentEvent(id="1", event="progress", data='{"step": "many"}'),
        ServerSentEvent(id="1", event="state", data='{"state": "asleep"}'),
        ServerSentEvent(id="1", event="state", data="[1]"),
        ServerSentEvent(id="1", event="state", data="nonsense"),
    ],
)
def test_an_event_that_is_none_of_a_job_is_refused(event: ServerSentEvent) -> None:
    with pytest.raises(InvalidResponseError):
        read_job_event(event)


def test_an_event_of_an_unknown_kind_is_kept_as_data() -> None:
    event = read_job_event(ServerSentEvent(id="3", event="note", data='{"x": 1}'))
    assert (event.sequence, event.kind, event.data) == (3, "note", {"x": 1})
    assert event.progress is None
    assert event.state is None


def progress(sequence: int, step: int) -> bytes:
    data = json.dumps({"phase": "student", "step": step, "num_steps": 9, "losses": {"total": 1.0}})
    return f"id: {sequence}\nevent: progress\ndata: {data}\n\n".encode()


def state(sequence: int, name: str) -> bytes:
    return f'id: {sequence}\nevent: state\ndata: {{"state": "{name}"}}\n\n'.encode()


def stream(*pieces: bytes, error: Exception | None = None) -> httpx.Response:
    return httpx.Response(
        200, stream=Pieces(*pieces, error=error), headers={"content-type": "text/event-stream"}
    )


def job(state: str = "running") -> httpx.Response:
    return httpx.Response(200, json=job_json(state))


async def collect(answers: list[Scripted], *, kind: str) -> tuple[list[int], ScriptedServer]:
    server = ScriptedServer([job(), *answers])
    if kind == "sync":
        with Client(transport=server.transport) as client:
            return [event.sequence for event in client.job(JOB_ID).events()], server
    async with AsyncClient(transport=server.async_transport) as async_client:
        handle = await async_client.job(JOB_ID)
        return [event.sequence async for event in handle.events()], server


BOTH = pytest.mark.parametrize("kind", ["sync", "async"])
# All three line ends of the standard, one that only Unicode calls so, and a comment behind an id.
SENT = (
    b': hi\r\nid: 1\nevent: progress\r\ndata: {"phase": "a\xe2\x80\xa8b",\rdata: "step": 1, '
    b'"num_steps": 9}\n\n: ping\n\nid:2\r\nevent:state\r\ndata:{"state": "failed"}\r\n\r\n'
)


@given(cuts=st.lists(st.integers(0, len(SENT)), max_size=8))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SENT)]
    pieces = [SENT[start:end] for start, end in itertools.pairwise(edges)]
    server = ScriptedServer([job(), stream(*pieces)])
    with Client(transport=server.transport) as client:
        first, last = client.job(JOB_ID).events()
    assert first.progress is not None
    assert (first.sequence, first.progress.phase) == (1, "a\u2028b")
    assert (last.sequence, last.state) == (2, "failed")


def test_pings_do_not_keep_one_waiting_beyond_the_deadline() -> None:
    def pings() -> Iterator[bytes]:
        while True:
            time.sleep(0.005)
            yield b": ping\n\n"

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return job()
        return httpx.Response(200, content=pings(), headers={"content-type": "text/event-stream"})

    transport = ScriptedServer([answer]).transport
    with Client(transport=transport) as client, pytest.raises(WaitTimeoutError):
        client.job(JOB_ID).wait(timeout=0.05)


@BOTH
@pytest.mark.anyio
async def test_an_answer_that_is_no_stream_of_events_is_refused(kind: str) -> None:
    with pytest.raises(InvalidResponseError, match="text/event-stream"):
        await collect([httpx.Response(200, text="<html>")], kind=kind)


@BOTH
@pytest.mark.anyio
async def test_a_broken_stream_resumes_after_the_last_event_seen(kind: str) -> None:
    sequences, server = await collect(
        [
            stream(state(1, "running"), progress(2, 1), error=httpx.ReadError("gone")),
            httpx.ConnectError("refused"),
            problem(503, "unavailable"),
            stream(progress(2, 1), progress(3, 2), state(4, "succeeded"), progress(5, 3)),
        ],
        kind=kind,
    )
    assert sequences == [1, 2, 3, 4]
    assert [request.headers.get("last-event-id") for request in server.requests[1:]] == [
        None,
        "2",
        "2",
        "2",
    ]


@BOTH
@pytest.mark.anyio
async def test_listening_to_a_job_that_ended_in_silence_ends(kind: str) -> None:
    sequences, _ = await collect([stream(progress(1, 1)), stream(), job("failed")], kind=kind)
    assert sequences == [1]


@BOTH
@pytest.mark.anyio
async def test_a_refusal_is_raised_at_once(kind: str) -> None:
    with pytest.raises(NotFoundError):
        await collect([problem(404, "not-found")], kind=kind)


@BOTH
@pytest.mark.anyio
async def test_a_server_that_stays_away_is_given_up(kind: str) -> None:
    with pytest.raises(ConnectionFailedError):
        await collect([httpx.ConnectError("refused")], kind=kind)


@BOTH
@pytest.mark.anyio
async def test_a_proxy_that_lets_no_connection_last_is_borne_however_long_a_job_waits(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BRIEF_SECONDS", 0.0)
    ended = [stream(error=httpx.ReadError("reset")) for _ in range(MAX_SILENT_RECONNECTS + 1)]
    found, _ = await collect([*ended, stream(state(1, "succeeded"))], kind=kind)
    assert found == [1]


def test_a_server_that_only_hangs_up_is_given_up() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return stream() if request.url.path.endswith("/events") else job()

    server = ScriptedServer([answer])
    with Client(transport=server.transport) as client:
        listener = client.job(JOB_ID).events()
        with pytest.raises(ConnectionFailedError, match="again and again"):
            next(listener)
    asked = [request for request in server.requests if request.url.path.endswith("/events")]
    assert len(asked) == MAX_SILENT_RECONNECTS + 1
