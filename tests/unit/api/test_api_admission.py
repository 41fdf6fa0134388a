"""Who gets a place, who is turned away and why, and when those are told to come back."""

import asyncio
from contextlib import ExitStack

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Scope

from app.api.dependencies import Services
from app.api.http.admission import (
    MAX_RETRY_AFTER_SECONDS,
    Admission,
    Throughput,
    caller_of,
)
from app.core.errors import BusyError
from app.main import MAX_STREAMS, MAX_STREAMS_PER_CALLER, MAX_UPLOADS, MAX_UPLOADS_PER_CALLER
from tests.fakes.api_calls import OCTETS
from tests.fakes.clock import Clock
from tests.fakes.servers.worker import FakeWorker


def _turned_away(admission: Admission, *, num_bytes: int = 0, caller: str = "") -> BusyError:
    with (
        pytest.raises(BusyError) as caught,
        admission.place(num_bytes=num_bytes, caller=caller),
    ):
        pass
    return caught.value


def _hint(admission: Admission, *, num_bytes: int = 0, caller: str = "") -> float:
    seconds = _turned_away(admission, num_bytes=num_bytes, caller=caller).retry_after_seconds
    assert seconds is not None
    return seconds


class TestHints:
    @staticmethod
    def _full(clock: Clock, *, seconds: float) -> tuple[Admission, ExitStack]:
        """All of two places taken, after each was used for this long many times."""
        admission = Admission(max_requests=2, max_bytes=100, clock=clock)
        for _ in range(int(60 / seconds)):
            with admission.place(), admission.place():
                clock.now += seconds
        stack = ExitStack()
        stack.enter_context(admission.place())
        stack.enter_context(admission.place())
        return admission, stack

    def test_at_first_a_second_is_the_guess(self) -> None:
        with Admission(max_requests=1, max_bytes=1, clock=Clock()).place():
            pass
        admission = Admission(max_requests=1, max_bytes=1, clock=Clock())
        with admission.place():
            assert _hint(admission) == 1

    def test_it_is_the_time_until_a_place_is_free(self) -> None:
        admission, stack = self._full(Clock(), seconds=10)
        with stack:
            # Two in ten seconds.
            assert _hint(admission) == pytest.approx(5, abs=1)

    def test_who_was_turned_away_before_does_not_change_it(self) -> None:
        admission, stack = self._full(Clock(), seconds=2)
        with stack:
            assert {_hint(admission, caller=caller) for caller in ("a", "a", "b")} == {1}

    def test_a_heavy_request_waits_for_as_many_as_weigh_the_same(self) -> None:
        clock = Clock()
        admission = Admission(max_requests=50, max_bytes=100, clock=clock)
        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(admission.place(num_bytes=10))
            light, heavy = _hint(admission, num_bytes=10), _hint(admission, num_bytes=80)
        assert heavy >= 8 * light

    @given(st.lists(st.floats(0, 100), max_size=40), st.integers(0, 10**9))
    def test_it_is_always_a_whole_number_within_bounds(
        self, pauses: list[float], num_bytes: int
    ) -> None:
        clock = Clock()
        admission = Admission(max_requests=1, max_bytes=10, clock=clock)
        for pause in pauses:
            with admission.place(num_bytes=num_bytes):
                clock.now += pause
                hint = _hint(admission, num_bytes=num_bytes)
                assert 1 <= hint <= MAX_RETRY_AFTER_SECONDS
                assert hint == int(hint)


class TestCallers:
    def test_a_caller_over_its_share_does_not_block_others(self) -> None:
        admission = Admission(max_requests=4, max_bytes=10, max_requests_per_caller=2)
        with admission.place(caller="a"), admission.place(caller="a"):
            assert _turned_away(admission, caller="a").details == {"reason": "caller"}
            with admission.place(caller="b"), admission.place(caller="b"):
                assert _turned_away(admission, caller="c").details == {"reason": "full"}
            with admission.place(caller="c"):
                pass
        with admission.place(caller="a"):
            pass

    def test_being_turned_away_by_name_costs_others_no_time(self) -> None:
        admission = Admission(
            max_requests=2, max_bytes=10, max_requests_per_caller=1, clock=Clock()
        )
        with admission.place(caller="a"):
            for _ in range(50):
                _turned_away(admission, caller="a")
            with admission.place(caller="b"):
                assert _hint(admission, caller="c") == 1

    def test_nothing_is_remembered_of_who_is_not_there(self) -> None:
        admission = Admission(max_requests=2, max_bytes=10, max_requests_per_caller=1)
        for number in range(100):
            with admission.place(caller=str(number)):
                _turned_away(admission, caller=str(number))
                assert len(admission._callers) == 1
        assert not admission._callers

    def test_without_a_share_nobody_is_told_apart(self) -> None:
        admission = Admission(max_requests=3, max_bytes=10)
        with admission.place(caller="a"), admission.place(caller="a"), admission.place(caller="a"):
            pass

    def test_rejections_are_counted_by_reason(self) -> None:
        admission = Admission(max_requests=2, max_bytes=10, max_requests_per_caller=1)
        with admission.place(num_bytes=10, caller="a"):
            _turned_away(admission, num_bytes=1, caller="a")
            _turned_away(admission, num_bytes=1, caller="b")
            with admission.place(caller="b"):
                _turned_away(admission, caller="c")
                _turned_away(admission, caller="d")
        assert admission.rejections() == {"caller": 1, "bytes": 1, "full": 2}

    def test_a_caller_is_its_address_whatever_it_says(self) -> None:
        def caller(token: bytes, *, host: str) -> str:
            headers = [(b"authorization", b"Bearer " + token)]
            return caller_of(Request({"type": "http", "headers": headers, "client": (host, 1)}))

        assert caller(b"one", host="10.0.0.1") == caller(b"two", host="10.0.0.1")
        assert caller(b"one", host="10.0.0.1") != caller(b"one", host="10.0.0.2")
        assert caller_of(Request({"type": "http", "headers": [], "client": None})) == ""


@pytest.mark.anyio
class TestRoutes:
    @staticmethod
    def _scope(path: str, *, content_length: bytes) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "client": ("10.0.0.9", 5),
            "headers": [
                (b"host", b"localhost"),
                (b"content-type", b"application/json"),
                (b"content-length", content_length),
            ],
        }

    @pytest.mark.parametrize(
        ("limits", "reason", "words"),
        [
            ((1, 10**9, None), "full", b"1 requests are in flight"),
            ((9, 100, None), "bytes", b"100 bytes of bodies are in flight, 1000 more"),
            ((9, 10**9, 1), "caller", b"1 requests of this caller are in flight"),
        ],
    )
    @pytest.mark.parametrize("path", ["/steer/generate", "/v1/chat/completions"])
    async def test_of_who_is_turned_away_not_a_byte_is_read(
        self,
        api: FastAPI,
        services: Services,
        *,
        limits: tuple[int, int, int | None],
        reason: str,
        words: bytes,
        path: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        max_requests, max_bytes, share = limits
        admission = Admission(
            max_requests=max_requests, max_bytes=max_bytes, max_requests_per_caller=share
        )
        monkeypatch.setitem(services.__dict__, "admission", admission)
        sent: list[Message] = []

        async def receive() -> Message:
            raise AssertionError("the body was read")

        async def send(message: Message) -> None:
            sent.append(message)

        with admission.place(num_bytes=100, caller="10.0.0.9"):
            await api(self._scope(path, content_length=b"1000"), receive, send)
        assert sent[0]["status"] == 429
        assert 1 <= int(dict(sent[0]["headers"])[b"retry-after"]) <= MAX_RETRY_AFTER_SECONDS
        assert words in sent[1]["body"]
        assert (b'"reason": "%s"' % reason.encode() in sent[1]["body"]) == (path[:3] != "/v1")
        assert admission.rejections() == {reason: 1}

    async def test_a_caller_has_its_share_and_others_have_theirs(
        self,
        api: FastAPI,
        worker: FakeWorker,
        *,
        services: Services,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        admission = Admission(max_requests=9, max_bytes=10**9, max_requests_per_caller=1)
        monkeypatch.setitem(services.__dict__, "admission", admission)
        worker.is_stuck = True

        async def ask(address: str, *, token: str = "") -> httpx.Response:
            transport = httpx.ASGITransport(app=api, client=(address, 5))
            headers = {"authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.post("/steer/generate", json={"prompt": "q"}, headers=headers)

        asking = [asyncio.create_task(ask(address)) for address in ("10.0.0.1", "10.0.0.2")]
        await worker.wait_until_running(2)
        refused = await ask("10.0.0.1", token="invented")  # noqa: S106 - nobody's
        assert (refused.status_code, refused.json()["details"]) == (429, {"reason": "caller"})
        worker.released.set()
        assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200, 200]
        assert not admission._callers

    async def test_a_caller_holds_only_a_part_of_the_places_for_uploads(
        self, api: FastAPI, services: Services
    ) -> None:
        async def send(address: str) -> httpx.Response:
            transport = httpx.ASGITransport(app=api, client=(address, 5))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.post("/vectors?name=n", content=b"-", headers=OCTETS)

        with ExitStack() as stack:
            for _ in range(MAX_UPLOADS_PER_CALLER):
                stack.enter_context(services.uploads.place(caller="10.0.0.1"))
            refused = await send("10.0.0.1")
            assert (refused.status_code, refused.json()["details"]) == (429, {"reason": "caller"})
            # It was let in, and is no vector file.
            assert (await send("10.0.0.2")).status_code == 422

    async def test_a_caller_holds_only_a_part_of_the_places_for_events(
        self, services: Services
    ) -> None:
        with ExitStack() as stack:
            for _ in range(MAX_STREAMS_PER_CALLER):
                stack.enter_context(services.streams.place(caller="key one"))
            with pytest.raises(BusyError, match="of this caller"):
                stack.enter_context(services.streams.place(caller="key one"))
            for _ in range(MAX_STREAMS - MAX_STREAMS_PER_CALLER):
                stack.enter_context(services.streams.place(caller="key other"))

    @pytest.mark.parametrize("path", ["/vectors", "/datasets"])
    async def test_an_impatient_sender_of_files_costs_others_no_time(
        self, http: httpx.AsyncClient, services: Services, path: str
    ) -> None:
        services.uploads._throughput = Throughput(clock=Clock())
        with ExitStack() as stack:
            for number in range(MAX_UPLOADS):
                stack.enter_context(services.uploads.place(caller=str(number)))
            for _ in range(40):
                refused = await http.post(path, params={"name": "n"}, headers=OCTETS)
                assert refused.status_code == 429
            assert _hint(services.uploads, caller="other") <= 3
