"""A full worker passes the request on to the next; what was begun is begun once."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import httpx
import pytest

from app.core.errors import BusyError, IncompatibleBackboneError, WorkerUnavailableError
from app.rpc.client import WorkerClient
from app.rpc.generation import GenerateResponse
from app.rpc.messages import EmbedRequest, ErrorBody, GenerateRequest
from tests.fakes.answers import answer_of, health_of
from tests.fakes.servers.worker import FakeWorker, backbone

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(request_id="r", prompt="what?")


class _Network(httpx.AsyncBaseTransport):
    def __init__(self, workers: Mapping[str, FakeWorker]) -> None:
        self._workers = workers
        self._apps = {name: httpx.ASGITransport(app=one.app()) for name, one in workers.items()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._workers[request.url.host].is_down:
            raise httpx.ConnectError("refused")
        return await self._apps[request.url.host].handle_async_request(request)


def _client(**workers: FakeWorker) -> WorkerClient:
    urls = [f"http://{name}" for name in workers]
    return WorkerClient(urls, transport=_Network(workers))


def _busy(seconds: float = 3.0) -> ErrorBody:
    return ErrorBody(code="busy", message="full", retry_after_seconds=seconds)


def _leaving() -> ErrorBody:
    return ErrorBody(code="worker-unavailable", message="leaving", retry_after_seconds=1.0)


async def _generate(client: WorkerClient, fingerprint: str | None = None) -> GenerateResponse:
    return await answer_of(client, REQUEST, fingerprint=fingerprint)


async def _stream(client: WorkerClient) -> object:
    parts: AsyncIterator[object] = client.generate(REQUEST.model_copy(update={"stream": True}))
    return [part async for part in parts][-1]


async def _embed(client: WorkerClient) -> object:
    return await client.embed(EmbedRequest(images=(None,), questions=("which?",)))


Ask = Callable[[WorkerClient], Awaitable[object]]

ASKING = pytest.mark.parametrize("ask", [_generate, _stream, _embed])


def _num_asked(worker: FakeWorker) -> int:
    return len(worker.generated) + len(worker.embedded)


@ASKING
async def test_the_next_worker_is_asked_when_the_least_loaded_is_full(ask: Ask) -> None:
    full, free = FakeWorker(error=_busy()), FakeWorker(running=9)
    async with _client(full=full, free=free) as client:
        assert await ask(client)
        assert (_num_asked(full), _num_asked(free)) == (1, 1)
        # It is asked again next time: it may have room by then.
        full.error = None
        await ask(client)
    assert (_num_asked(full), _num_asked(free)) == (2, 1)


@ASKING
async def test_when_all_are_full_the_soonest_hint_is_given(ask: Ask) -> None:
    workers = {name: FakeWorker(error=_busy(at)) for name, at in (("a", 9), ("b", 2), ("c", 5))}
    async with _client(**workers) as client:
        with pytest.raises(BusyError) as caught:
            await ask(client)
    assert caught.value.retry_after_seconds == 2
    assert [_num_asked(one) for one in workers.values()] == [1, 1, 1]


async def test_a_worker_with_another_backbone_is_no_substitute() -> None:
    full = FakeWorker(error=_busy())
    other = FakeWorker(description=backbone("b"))
    async with _client(full=full, other=other) as client:
        with pytest.raises(BusyError):
            await _generate(client, "a" * 64)
        assert _num_asked(other) == 0
        with pytest.raises(IncompatibleBackboneError):
            await _generate(client, "c" * 64)


async def test_a_full_worker_is_told_of_rather_than_one_that_is_gone() -> None:
    full, gone = FakeWorker(error=_busy(), running=9), FakeWorker()
    async with _client(full=full, gone=gone) as client:
        await health_of(client.pool)
        gone.is_down = True
        with pytest.raises(BusyError):
            await _generate(client)
        full.is_down = True
        with pytest.raises(WorkerUnavailableError):
            await _generate(client)


@ASKING
async def test_the_next_worker_is_asked_when_one_shuts_down(ask: Ask) -> None:
    leaving, free = FakeWorker(error=_leaving()), FakeWorker(running=9)
    async with _client(leaving=leaving, free=free) as client:
        assert await ask(client)
        # What was heard of it is no longer true.
        assert await ask(client)
    assert (_num_asked(leaving), _num_asked(free)) == (1, 2)


async def test_when_all_shut_down_it_says_so() -> None:
    async with _client(a=FakeWorker(error=_leaving()), b=FakeWorker(error=_leaving())) as client:
        with pytest.raises(WorkerUnavailableError, match="leaving"):
            await _generate(client)


async def test_a_full_worker_is_told_of_rather_than_one_that_shuts_down() -> None:
    full = FakeWorker(error=_busy(9.0), running=9)
    async with _client(full=full, leaving=FakeWorker(error=_leaving())) as client:
        with pytest.raises(BusyError):
            await _generate(client)


@pytest.mark.parametrize("is_refused", [True, False], ids=["refuses", "shuts down"])
async def test_another_backbone_does_not_make_a_lost_worker_incompatible(
    *, is_refused: bool
) -> None:
    lost, other = FakeWorker(error=_leaving()), FakeWorker(description=backbone("b"))
    async with _client(lost=lost, other=other) as client:
        await health_of(client.pool)
        lost.is_down = is_refused
        with pytest.raises(WorkerUnavailableError):
            await _generate(client, "a" * 64)
    assert _num_asked(other) == 0


async def test_a_refusal_of_somebody_in_between_is_final() -> None:
    class _Gateway(httpx.AsyncBaseTransport):
        def __init__(self, *workers: str) -> None:
            self.num_posts = 0
            self._network = _Network({name: FakeWorker() for name in workers})

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                return await self._network.handle_async_request(request)
            self.num_posts += 1
            return httpx.Response(503, text="<html>")

    gateway = _Gateway("one", "two")
    async with WorkerClient(["http://one", "http://two"], transport=gateway) as client:
        with pytest.raises(WorkerUnavailableError, match="unreadable"):
            await _generate(client)
    assert gateway.num_posts == 1


@pytest.mark.parametrize("code", ["unavailable", "out-of-device-memory", "invalid-input"])
async def test_any_other_error_is_final(code: str) -> None:
    failing = FakeWorker(error=ErrorBody(code=code, message="no"))
    free = FakeWorker(running=9)
    async with _client(failing=failing, free=free) as client:
        with pytest.raises(Exception, match="no"):
            await _generate(client)
    assert _num_asked(free) == 0
