"""Whom a request waits for: never for a silent worker while another one can take it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from app.core.errors import IncompatibleBackboneError, WorkerUnavailableError
from app.rpc.client import WorkerClient
from app.rpc.messages import GenerateRequest
from app.rpc.pool import WorkerPool
from tests.fakes.answers import answer_of, health_of
from tests.fakes.servers.worker import FakeWorker, backbone
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio

AGE = "app.rpc.pool.HEALTH_AGE_SECONDS"
TIMEOUT = "app.rpc.pool.SILENCE_SECONDS"
# The silent worker itself would be waited for ten times as long.
LONG_BEFORE = 60.0
REQUEST = GenerateRequest(request_id="r", prompt="what?")


class _Network(httpx.AsyncBaseTransport):
    """Hosts by name; silent ones take connections and say nothing until all have spoken."""

    def __init__(self, **workers: FakeWorker) -> None:
        self._apps = {name: httpx.ASGITransport(app=one.app()) for name, one in workers.items()}
        self.silent: set[str] = set()
        self.spoken = asyncio.Event()
        self.refusing: set[str] = set()
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if request.url.path == "/health":
            self.asked.append(host)
        if host in self.refusing:
            raise httpx.ConnectError("refused")
        if host in self.silent or host not in self._apps:
            await self.spoken.wait()
        return await self._apps[host].handle_async_request(request)

    @asynccontextmanager
    async def pool(self, *hosts: str) -> AsyncIterator[WorkerPool]:
        async with httpx.AsyncClient(transport=self) as http:
            pool = WorkerPool([f"http://{host}" for host in hosts], http=http)
            yield pool
            await pool.aclose()


async def test_a_silent_worker_holds_no_request_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every answer is out of date at once, so that each request asks again.
    monkeypatch.setattr(AGE, 0.0)
    monkeypatch.setattr(TIMEOUT, 600.0)
    network = _Network(good=FakeWorker())
    urls = ["http://hole", "http://good"]
    async with WorkerClient(urls, transport=network) as client:
        async with asyncio.timeout(LONG_BEFORE):
            for _ in range(5):
                await asyncio.gather(*(answer_of(client, REQUEST) for _ in range(5)))
    # It is asked once at a time, however many want to know.
    assert network.asked.count("hole") == 1


async def test_a_worker_that_falls_silent_holds_no_request_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = _Network(one=FakeWorker(), two=FakeWorker(running=9))
    async with network.pool("one", "two") as pool:
        assert (await pool.choose(None)).url == "http://one"
        network.silent.add("one")
        monkeypatch.setattr(AGE, 0.0)
        monkeypatch.setattr(TIMEOUT, 600.0)
        async with asyncio.timeout(LONG_BEFORE):
            assert (await pool.choose(None)).url == "http://two"
            assert len(await pool.serving()) == 2


async def test_a_worker_that_failed_is_asked_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TIMEOUT, 0.1)
    network = _Network(good=FakeWorker())
    async with network.pool("hole", "good") as pool:
        for _ in range(20):
            await pool.choose(None)
            await pool.serving()
            await asyncio.sleep(0.02)
        assert network.asked.count("hole") == 1
        monkeypatch.setattr(AGE, 0.0)
        await pool.choose(None)
        assert network.asked.count("hole") == 2


async def test_a_worker_too_busy_to_say_how_it_is_gets_the_request() -> None:
    network = _Network(busy=FakeWorker())
    network.silent.add("busy")
    async with network.pool("busy") as pool:
        asking = asyncio.create_task(pool.choose(None))
        await asyncio.sleep(2.5)
        assert not asking.done()
        network.silent.clear()
        network.spoken.set()
        assert (await asking).url == "http://busy"


async def test_a_worker_that_refuses_connections_is_gone_at_once() -> None:
    network = _Network(one=FakeWorker())
    async with network.pool("one", "gone") as pool:
        network.refusing.add("gone")
        await health_of(pool)
        assert [worker.health is None for worker in pool.all] == [False, True]
        network.refusing.add("one")
        assert await health_of(pool) == ()
        with pytest.raises(WorkerUnavailableError):
            await pool.ready()


async def test_the_only_worker_that_fits_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    other = FakeWorker(description=backbone("b"))
    network = _Network(fits=FakeWorker(), other=other)
    network.silent.add("fits")
    monkeypatch.setattr(TIMEOUT, 0.2)
    async with network.pool("fits", "other") as pool:
        with pytest.raises(IncompatibleBackboneError) as caught:
            await pool.choose("a" * 64)
        assert caught.value.details["found"] == ["b" * 64]
        monkeypatch.setattr(AGE, 0.0)
        network.silent.clear()
        assert (await pool.choose("a" * 64)).url == "http://fits"


async def test_a_worker_never_heard_of_is_waited_for() -> None:
    network = _Network(slow=FakeWorker(), quick=FakeWorker())
    network.silent.add("slow")
    async with network.pool("slow", "quick") as pool:
        asking = asyncio.create_task(pool.serving())
        await until(lambda: pool.all[1].health is not None)
        await asyncio.sleep(0.2)
        # Its backbone may be another one, which it would be wrong to call unknown.
        assert not asking.done()
        asking.cancel()


async def test_without_any_answer_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TIMEOUT, 0.1)
    async with _Network().pool("hole", "pit") as pool:
        assert await health_of(pool) == ()
        for ask in (pool.serving(), pool.choose(None)):
            with pytest.raises(WorkerUnavailableError):
                await ask


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    network = _Network(one=FakeWorker())
    async with network.pool("one") as pool:
        leaving, staying = (asyncio.create_task(pool.choose(None)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).url == "http://one"
    assert network.asked == ["one"]


@pytest.mark.parametrize("error", [httpx.ReadError, httpx.RemoteProtocolError])
async def test_a_connection_that_was_closed_just_then_is_no_worker_that_is_gone(
    error: type[httpx.TransportError],
) -> None:
    class _Closing(httpx.AsyncBaseTransport):
        num_closed = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not self.num_closed:
                self.num_closed += 1
                raise error("closed")
            return await network.handle_async_request(request)

    network = _Network(one=FakeWorker())
    async with httpx.AsyncClient(transport=_Closing()) as http:
        assert (await WorkerPool(["http://one"], http=http).choose(None)).url == "http://one"


async def test_a_fault_of_ours_is_not_taken_for_silence() -> None:
    class _Faulty(httpx.AsyncBaseTransport):
        async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
            raise RuntimeError("fault")

    async with httpx.AsyncClient(transport=_Faulty()) as http:
        with pytest.raises(RuntimeError, match="fault"):
            await WorkerPool(["http://one"], http=http).choose(None)


async def test_the_first_worker_to_come_up_is_not_asked_as_late_as_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AGE, 600.0)
    network = _Network(late=FakeWorker())
    network.refusing.add("late")
    async with network.pool("late") as pool:
        with pytest.raises(WorkerUnavailableError):
            await pool.ready()
        network.refusing.clear()
        await asyncio.sleep(0.2)
        assert len(await pool.serving()) == 1
