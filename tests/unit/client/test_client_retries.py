import uuid
from typing import Any

import httpx
import pytest

from tests.fakes.servers.scripted_server import (
    Scripted,
    ScriptedServer,
    answer_json,
    job_json,
    problem,
    vector_json,
)
from vlibrary_client import (
    Answer,
    AsyncClient,
    BusyError,
    Client,
    ConflictError,
    ConnectionFailedError,
    FieldError,
    InvalidInputError,
    InvalidResponseError,
    NotFoundError,
    RequestTimeoutError,
    UnavailableError,
    VLibraryError,
)
from vlibrary_client.calls.requests import get_vector
from vlibrary_client.wire.connection import (
    FIRST_DELAY_SECONDS,
    MAX_DELAY_SECONDS,
    retry_delay,
)
from vlibrary_client.wire.replies import error_from_problem
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []

    async def note(_self: AsyncTransport, delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr(SyncTransport, "sleep", lambda _self, delay: seconds.append(delay))
    monkeypatch.setattr(AsyncTransport, "sleep", note)
    return seconds


async def steer(server: ScriptedServer, kind: str, *, max_retries: int = 4) -> Answer:
    if kind == "sync":
        with Client(transport=server.transport, max_retries=max_retries) as client:
            return client.steer.generate("q")
    async with AsyncClient(
        transport=server.async_transport, max_retries=max_retries
    ) as async_client:
        return await async_client.steer.generate("q")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.anyio
async def test_a_busy_server_is_asked_again_when_it_said(
    status: int, kind: str, waits: list[float]
) -> None:
    answers: list[Scripted] = [
        problem(status, "busy", **{"retry-after": "7"}),
        problem(status, "busy", **{"retry-after": "100000"}),
        httpx.Response(200, json=answer_json()),
    ]
    server = ScriptedServer(answers)
    assert (await steer(server, kind)).text == "red"
    assert waits == [7.0, 30.0]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.anyio
async def test_patience_ends_with_the_servers_error(kind: str, waits: list[float]) -> None:
    server = ScriptedServer([problem(429, "busy", **{"retry-after": "1"})])
    with pytest.raises(BusyError) as caught:
        await steer(server, kind, max_retries=2)
    assert (caught.value.request_id, caught.value.retry_after_seconds) == ("r-1", 1.0)
    assert len(server.requests) == 3
    assert waits == [1.0, 1.0]


def test_a_repeated_training_request_carries_the_same_key(waits: list[float]) -> None:
    server = ScriptedServer([problem(503, "unavailable"), httpx.Response(202, json=job_json())])
    with Client(transport=server.transport) as client:
        client.train("n", "d")
        client.train("n", "d")
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys[0] == keys[1] != keys[2]
    assert len(waits) == 1


def test_a_request_that_is_being_answered_is_sent_again(waits: list[float]) -> None:
    busy = problem(409, "in-progress", **{"retry-after": "1"})
    server = ScriptedServer([busy, httpx.Response(202, json=job_json())])
    with Client(transport=server.transport) as client:
        client.train("n", "d")
    assert waits == [1.0]
    server = ScriptedServer([problem(409, "conflict")])
    with Client(transport=server.transport) as client, pytest.raises(ConflictError):
        client.train("n", "d")
    assert waits == [1.0]


@pytest.mark.parametrize(
    ("ref", "is_repeated"),
    [
        ("n", False),
        ("n@prod", False),
        ("n@3", True),
        (uuid.UUID(int=7), True),
        (str(uuid.UUID(int=7)), True),
    ],
)
def test_a_change_is_sent_again_only_where_it_can_meet_no_other_version(
    ref: str | uuid.UUID, waits: list[float], *, is_repeated: bool
) -> None:
    lost = httpx.RemoteProtocolError("hung up")
    server = ScriptedServer([lost, httpx.Response(200, json=vector_json())])
    with Client(transport=server.transport) as client:
        if is_repeated:
            client.vectors.update(ref, description="newer")
        else:
            with pytest.raises(ConnectionFailedError):
                client.vectors.update(ref, description="newer")
    assert len(waits) == is_repeated


def test_a_delete_is_not_sent_again(waits: list[float]) -> None:
    server = ScriptedServer([problem(503, "unavailable")])
    with Client(transport=server.transport) as client, pytest.raises(UnavailableError):
        client.vectors.delete("n")
    assert waits == []


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.anyio
async def test_a_lost_connection_is_opened_again(kind: str, waits: list[float]) -> None:
    answers: list[Scripted] = [
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("hung up"),
        httpx.Response(200, json=answer_json()),
    ]
    server = ScriptedServer(answers)
    assert (await steer(server, kind)).text == "red"
    assert len(waits) == 2


def test_any_request_is_sent_again_when_nothing_was_sent(waits: list[float]) -> None:
    server = ScriptedServer([httpx.ConnectError("refused"), httpx.Response(204)])
    with Client(transport=server.transport) as client:
        client.vectors.delete("n")
    assert len(waits) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.anyio
async def test_a_timeout_is_not_waited_for_twice(kind: str, waits: list[float]) -> None:
    server = ScriptedServer([httpx.ReadTimeout("slow")])
    with pytest.raises(RequestTimeoutError):
        await steer(server, kind)
    assert waits == []


def test_a_server_that_is_not_there_is_a_library_error() -> None:
    server = ScriptedServer([httpx.ConnectError("http://secret@host refused")])
    with (
        Client(transport=server.transport, max_retries=0) as client,
        pytest.raises(ConnectionFailedError) as caught,
    ):
        client.ready()
    assert "secret" not in str(caught.value)


def test_an_unready_service_is_an_answer() -> None:
    body = {"status": "unready", "checks": {"worker": {"ok": False, "detail": "gone"}}}
    server = ScriptedServer([httpx.Response(503, json=body)])
    with Client(transport=server.transport) as client:
        assert client.ready().checks["worker"].detail == "gone"


def test_an_error_carries_everything_the_server_said() -> None:
    server = ScriptedServer([problem(422, "invalid-input")])
    with Client(transport=server.transport) as client, pytest.raises(InvalidInputError) as caught:
        client.retrieve(text="q")
    error = caught.value
    assert (error.status, error.code, error.request_id) == (422, "invalid-input", "r-1")
    assert error.details == {"wanted": "a", "found": "b"}
    assert error.errors == (FieldError(location="body.k", message="too big"),)
    assert str(error) == "what invalid-input means; body.k: too big (request r-1)"


def test_an_answer_of_another_shape_is_a_library_error() -> None:
    broken = {**vector_json(), "version": "three"}
    server = ScriptedServer([httpx.Response(200, json=broken, headers={"x-request-id": "r-9"})])
    with (
        Client(transport=server.transport) as client,
        pytest.raises(InvalidResponseError) as caught,
    ):
        client.vectors.get("n")
    assert "version" in str(caught.value)
    assert caught.value.request_id == "r-9"


def test_the_key_goes_into_the_header_only() -> None:
    server = ScriptedServer([httpx.Response(200, json=vector_json())])
    with Client(transport=server.transport, api_key="vlib_1_x") as client:
        client.vectors.get("n")
    assert server.requests[0].headers["authorization"] == "Bearer vlib_1_x"
    assert "vlib_1_x" not in str(server.requests[0].url)


def test_waits_double_with_some_randomness() -> None:
    error, call = VLibraryError("refused", status=503), get_vector("n")
    delays = set()
    for attempt in range(9):
        delay = retry_delay(error, call, attempt, max_retries=9)
        longest = min(FIRST_DELAY_SECONDS * 2.0**attempt, MAX_DELAY_SECONDS)
        assert delay is not None
        assert 0.5 * longest <= delay <= longest
        delays.add(delay / longest)
    assert len(delays) > 1
    assert retry_delay(error, call, 9, max_retries=9) is None


def test_patience_has_no_end_that_nobody_asked_for() -> None:
    error, call = VLibraryError("refused", status=503), get_vector("n")
    delay = retry_delay(error, call, 5000, max_retries=10_000)
    assert delay is not None
    assert 0.5 * MAX_DELAY_SECONDS <= delay <= MAX_DELAY_SECONDS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3.0), ("0", 0.0), ("-1", None), ("nan", None), ("inf", None), ("Wed, 21 Oct", None)],
)
def test_retry_after_is_read_with_suspicion(text: str, seconds: float | None) -> None:
    error = error_from_problem({}, status=429, retry_after=text)
    assert error.retry_after_seconds == seconds


def test_an_unknown_code_is_kept() -> None:
    server = ScriptedServer([problem(418, "teapot")])
    with Client(transport=server.transport) as client, pytest.raises(VLibraryError) as caught:
        client.vectors.get("n")
    assert (type(caught.value), caught.value.code) == (VLibraryError, "teapot")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "There is nothing here", "code": "not-found"}},
        {"message": "There is nothing here", "code": "not-found"},
    ],
)
def test_an_error_of_another_part_of_the_service_is_told_in_its_words(body: dict[str, Any]) -> None:
    server = ScriptedServer([httpx.Response(404, json=body)])
    with (
        Client(transport=server.transport, max_retries=0) as client,
        pytest.raises(NotFoundError, match="There is nothing here"),
    ):
        client.vectors.get("n")


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "not-found"), (413, "too-large"), (502, "unavailable"), (500, "error")],
)
def test_an_error_of_a_proxy_is_told_by_its_status(status: int, code: str) -> None:
    server = ScriptedServer([httpx.Response(status, text="<html>")])
    with (
        Client(transport=server.transport, max_retries=0) as client,
        pytest.raises(VLibraryError) as caught,
    ):
        client.vectors.get("n")
    assert caught.value.code == code
