"""The client against fake workers that speak the wire."""

import asyncio
from collections.abc import Mapping

import httpx
import pytest

from app.core.errors import (
    BusyError,
    IncompatibleBackboneError,
    InvalidImageError,
    WorkerUnavailableError,
)
from app.rpc.client import WorkerClient
from app.rpc.messages import EmbedRequest, ErrorBody, GenerateRequest
from app.rpc.pool import SILENCE_SECONDS
from tests.fakes.answers import answer_of, health_of
from tests.fakes.servers.worker import FakeWorker, backbone
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio


class _Network(httpx.AsyncBaseTransport):
    """Hosts by name; a host that is missing or down refuses connections."""

    def __init__(self, workers: Mapping[str, FakeWorker]) -> None:
        self._workers = workers
        self._apps = {name: httpx.ASGITransport(app=one.app()) for name, one in workers.items()}
        self.num_health = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        worker = self._workers.get(request.url.host)
        if worker is None or worker.is_down:
            raise httpx.ConnectError("refused")
        self.num_health += request.url.path == "/health"
        return await self._apps[request.url.host].handle_async_request(request)


class _Broken(httpx.AsyncBaseTransport):
    """A healthy worker whose answers to anything else are given by a function."""

    def __init__(self, answer: "httpx.Response | Exception") -> None:
        self._answer = answer
        self._healthy = httpx.ASGITransport(app=FakeWorker().app())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return await self._healthy.handle_async_request(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def _client(workers: Mapping[str, FakeWorker], *missing: str) -> WorkerClient:
    urls = [f"http://{name}/" for name in (*missing, *workers)]
    return WorkerClient(urls, transport=_Network(workers))


def _request(**changes: object) -> GenerateRequest:
    return GenerateRequest.model_validate({"request_id": "r", "prompt": "what?", **changes})


@pytest.fixture
def workers() -> dict[str, FakeWorker]:
    return {"one": FakeWorker(), "two": FakeWorker()}


async def test_images_and_vectors_arrive_as_they_were_sent(workers: dict[str, FakeWorker]) -> None:
    request = _request(
        images=[b"\x00\xff\xfe"],
        vectors=[{"sha256": "a" * 64, "name": "n", "version": 2}],
    )
    async with _client({"one": workers["one"]}) as client:
        answer = await answer_of(client, request)
    assert workers["one"].generated == [request]
    assert answer.receipt.vectors[0].sha256 == "a" * 64


async def test_embeddings_come_back_row_by_row(workers: dict[str, FakeWorker]) -> None:
    request = EmbedRequest(images=(b"x", None), questions=(None, "which?"))
    async with _client(workers) as client:
        answer = await client.embed(request)
    assert len(answer.embeddings) == 2
    assert len(answer.embeddings[0]) == answer.dim


async def test_the_least_loaded_worker_is_asked(workers: dict[str, FakeWorker]) -> None:
    workers["one"].running = 5
    async with _client(workers) as client:
        await answer_of(client, _request())
    assert [len(workers[name].generated) for name in ("one", "two")] == [0, 1]


async def test_requests_in_flight_count_before_the_workers_say_so(
    workers: dict[str, FakeWorker],
) -> None:
    for worker in workers.values():
        worker.is_stuck = True
    async with _client(workers) as client:
        asking = [
            asyncio.create_task(answer_of(client, _request(request_id=str(n)))) for n in range(6)
        ]
        await until(lambda: sum(len(one.generated) for one in workers.values()) == 6)
        for worker in workers.values():
            worker.released.set()
        await asyncio.gather(*asking)
    assert [len(workers[name].generated) for name in ("one", "two")] == [3, 3]


async def test_health_is_asked_once_for_many_requests(workers: dict[str, FakeWorker]) -> None:
    network = _Network(workers)
    async with WorkerClient(["http://one", "http://two"], transport=network) as client:
        for _ in range(5):
            await answer_of(client, _request())
    assert network.num_health == 2


async def test_only_workers_with_the_asked_backbone_are_asked() -> None:
    workers = {
        "one": FakeWorker(description=backbone("a")),
        "two": FakeWorker(description=backbone("b"), running=9),
    }
    async with _client(workers) as client:
        await answer_of(client, _request(), fingerprint="b" * 64)
        assert len(workers["two"].generated) == 1
        with pytest.raises(IncompatibleBackboneError) as caught:
            await answer_of(client, _request(), fingerprint="c" * 64)
    assert caught.value.details == {"wanted": "c" * 64, "found": ["a" * 64, "b" * 64]}


async def test_draining_and_training_workers_are_not_asked() -> None:
    workers = {"one": FakeWorker(status="draining"), "two": FakeWorker(role="train")}
    async with _client(workers) as client:
        with pytest.raises(WorkerUnavailableError):
            await answer_of(client, _request())
        assert len(await health_of(client.pool)) == 2


async def test_an_unreachable_worker_is_passed_over(workers: dict[str, FakeWorker]) -> None:
    async with _client(workers, "gone") as client:
        assert len(await health_of(client.pool)) == 2
        await answer_of(client, _request())
        # It goes away after it was last seen in good health.
        asked, other = ("one", "two") if workers["one"].generated else ("two", "one")
        workers[other].running = 50
        workers[asked].is_down = True
        await answer_of(client, _request())
    assert len(workers[other].generated) == 1


async def test_without_any_worker_it_says_so_and_when_to_try_again() -> None:
    async with _client({}, "gone") as client:
        with pytest.raises(WorkerUnavailableError) as caught:
            await answer_of(client, _request())
    assert caught.value.retry_after_seconds is not None


async def test_a_worker_that_comes_back_is_found(
    workers: dict[str, FakeWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers["one"].is_down = True
    async with _client({"one": workers["one"]}) as client:
        with pytest.raises(WorkerUnavailableError):
            await answer_of(client, _request())
        workers["one"].is_down = False
        monkeypatch.setattr("app.rpc.pool.HEALTH_AGE_SECONDS", 0.0)
        await answer_of(client, _request())


@pytest.mark.parametrize(
    ("code", "kind"), [("busy", BusyError), ("invalid-image", InvalidImageError)]
)
async def test_errors_keep_their_class_and_details(code: str, kind: type[Exception]) -> None:
    body = ErrorBody(code=code, message="no", details={"place": 1}, retry_after_seconds=7.5)
    async with _client({"one": FakeWorker(error=body)}) as client:
        with pytest.raises(kind) as caught:
            await answer_of(client, _request())
    assert caught.value.args == ("no",)
    if isinstance(caught.value, BusyError):
        assert caught.value.details["place"] == 1
        assert caught.value.retry_after_seconds == 7.5


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.ReadError("cut"), WorkerUnavailableError),
        (httpx.RemoteProtocolError("gone"), WorkerUnavailableError),
        (httpx.Response(502, text="<html>"), WorkerUnavailableError),
        (httpx.Response(200, json={"text": "half"}), WorkerUnavailableError),
    ],
)
async def test_whatever_breaks_becomes_a_library_error(
    answer: "httpx.Response | Exception", kind: type[Exception]
) -> None:
    async with WorkerClient(["http://one"], transport=_Broken(answer)) as client:
        with pytest.raises(kind):
            await answer_of(client, _request())


async def test_cancelling_closes_the_request_at_the_worker(workers: dict[str, FakeWorker]) -> None:
    worker = workers["one"]
    worker.is_stuck = True
    async with _client({"one": worker}) as client:
        asking = asyncio.create_task(answer_of(client, _request()))
        await until(lambda: worker.running == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert worker.num_cancelled == 1


async def test_a_busy_worker_has_its_time_to_take_the_connection_and_to_speak() -> None:
    class _Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            allowed = request.extensions["timeout"]
            assert allowed["connect"] == allowed["read"] == SILENCE_SECONDS >= 10
            raise httpx.ReadTimeout("silence")

    async with WorkerClient(["http://one"], transport=_Silent()) as client:
        assert await health_of(client.pool) == ()
