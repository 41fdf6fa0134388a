import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import pytest
import torch

from app.core.errors import CorruptDataError, IncompatibleBackboneError, InvalidInputError
from app.core.identifiers import sha256_hex
from app.core.vectors.file import decode_vector_file
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.serving.vector_cache import VectorCache
from tests.fakes.vectors import make_description, make_vector_file

pytestmark = pytest.mark.anyio

NUM_SLOTS = 3


class _Shelf:
    """Files by digest, and how often each was fetched."""

    def __init__(self, backbone: Backbone, *, count: int) -> None:
        files = [make_vector_file(seed, backbone=backbone.description) for seed in range(count)]
        self.files = {sha256_hex(data): data for data in files}
        self.digests = list(self.files)
        self.fetched: list[str] = []

    async def fetch(self, digest: str) -> bytes:
        self.fetched.append(digest)
        await asyncio.sleep(0)
        return self.files[digest]

    def shift(self, digest: str) -> torch.Tensor:
        tensors, _ = decode_vector_file(self.files[digest])
        return InContextVectors.from_tensors(tensors).shift()


@pytest.fixture
async def device(backbone: Backbone) -> AsyncIterator[DeviceThread]:
    engine = Engine(backbone, max_rows=1)
    running = DeviceThread(engine)
    running.start()
    yield running
    await asyncio.to_thread(running.stop)
    engine.close()


@pytest.fixture
def shelf(backbone: Backbone) -> _Shelf:
    return _Shelf(backbone, count=8)


@pytest.fixture
def vector_cache(backbone: Backbone, device: DeviceThread, shelf: _Shelf) -> VectorCache:
    return VectorCache(backbone, device=device, fetch=shelf.fetch, num_slots=NUM_SLOTS)


async def test_the_sum_of_shifts_times_strengths_is_applied(
    vector_cache: VectorCache, device: DeviceThread, shelf: _Shelf
) -> None:
    first, second = shelf.digests[:2]
    async with vector_cache.hold([first, second]) as slots:
        parts = [(slots[first], 2.0), (slots[second], -0.5)]
        found = await device.call(lambda: vector_cache.combined(parts))
        nothing = await device.call(lambda: vector_cache.combined([]))
    torch.testing.assert_close(found, shelf.shift(first) * 2.0 - shelf.shift(second) * 0.5)
    assert not nothing.any()


async def test_a_vector_is_fetched_once_for_many_requests(
    vector_cache: VectorCache, shelf: _Shelf
) -> None:
    async def use() -> None:
        async with vector_cache.hold([shelf.digests[0]]):
            await asyncio.sleep(0.01)

    await asyncio.gather(*(use() for _ in range(5)))
    await use()
    assert shelf.fetched == [shelf.digests[0]]


async def test_the_least_recently_used_vector_makes_room(
    vector_cache: VectorCache, shelf: _Shelf
) -> None:
    for digest in (*shelf.digests[:3], shelf.digests[0], shelf.digests[3]):
        async with vector_cache.hold([digest]):
            pass
    shelf.fetched.clear()
    for digest in (shelf.digests[0], shelf.digests[2], shelf.digests[3], shelf.digests[1]):
        async with vector_cache.hold([digest]):
            pass
    assert shelf.fetched == [shelf.digests[1]]
    assert vector_cache.num_resident == NUM_SLOTS


async def test_a_held_vector_is_never_replaced(
    vector_cache: VectorCache, device: DeviceThread, shelf: _Shelf
) -> None:
    async with vector_cache.hold([shelf.digests[0]]) as slots:
        slot = slots[shelf.digests[0]]
        for digest in shelf.digests[1:]:
            async with vector_cache.hold([digest]):
                pass
        found = await device.call(lambda: vector_cache.combined([(slot, 1.0)]))
    torch.testing.assert_close(found, shelf.shift(shelf.digests[0]))


async def test_a_request_waits_while_others_hold_every_slot(
    vector_cache: VectorCache, shelf: _Shelf
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(vector_cache.hold(shelf.digests[:3]))
        waiting = asyncio.create_task(_hold_briefly(vector_cache, shelf.digests[3]))
        await asyncio.sleep(0.02)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 5)


async def test_those_who_come_later_do_not_overtake_a_request_that_waits_for_slots(
    vector_cache: VectorCache, shelf: _Shelf
) -> None:
    order: list[tuple[str, ...]] = []

    async def use(*digests: str) -> None:
        async with vector_cache.hold(digests):
            order.append(digests)

    here, absent = shelf.digests[0], shelf.digests[NUM_SLOTS]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(vector_cache.hold(shelf.digests[:NUM_SLOTS]))
        first = asyncio.create_task(use(absent))
        await asyncio.sleep(0.02)
        # One that is in use already, and none at all, which waits for nobody.
        others = [asyncio.create_task(use(here)), asyncio.create_task(use())]
        await asyncio.sleep(0.02)
        assert order == [()]
    await asyncio.wait_for(asyncio.gather(first, *others), 5)
    assert order == [(), (absent,), (here,)]


async def _hold_briefly(vector_cache: VectorCache, *digests: str) -> None:
    async with vector_cache.hold(digests):
        await asyncio.sleep(0)


async def test_random_use_never_serves_a_wrong_vector_and_never_leaks_a_slot(
    vector_cache: VectorCache, device: DeviceThread, shelf: _Shelf
) -> None:
    rng = random.Random(0)  # noqa: S311 - a test's own draws

    async def use(digests: list[str]) -> None:
        async with vector_cache.hold(digests) as slots:
            for digest in digests:
                found = await device.call(partial(vector_cache.combined, [(slots[digest], 1.0)]))
                torch.testing.assert_close(found, shelf.shift(digest))
            await asyncio.sleep(rng.random() / 500)

    tasks = []
    for _ in range(120):
        task = asyncio.create_task(use(rng.sample(shelf.digests, rng.randint(1, NUM_SLOTS))))
        tasks.append(task)
        if rng.random() < 0.2:
            task.cancel()
        await asyncio.sleep(rng.random() / 500)
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    wrong = [one for one in outcomes if isinstance(one, Exception)]
    assert wrong == []
    # Every slot can be had again.
    await asyncio.wait_for(_hold_briefly(vector_cache, *shelf.digests[:NUM_SLOTS]), 5)


async def test_a_cancelled_request_leaves_the_load_to_others(
    vector_cache: VectorCache, shelf: _Shelf
) -> None:
    first = asyncio.create_task(_hold_briefly(vector_cache, shelf.digests[0]))
    second = asyncio.create_task(_hold_briefly(vector_cache, shelf.digests[0]))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert shelf.fetched == [shelf.digests[0]]


async def test_a_slot_is_not_given_away_while_a_load_may_still_write_to_it(
    backbone: Backbone, device: DeviceThread, shelf: _Shelf
) -> None:
    may_go_on = asyncio.Event()

    async def fetch(digest: str) -> bytes:
        if digest == shelf.digests[0]:
            await may_go_on.wait()
        return shelf.files[digest]

    vector_cache = VectorCache(backbone, device=device, fetch=fetch, num_slots=1)
    slow = asyncio.create_task(_hold_briefly(vector_cache, shelf.digests[0]))
    await asyncio.sleep(0.01)
    slow.cancel()

    async def use() -> torch.Tensor:
        async with vector_cache.hold([shelf.digests[1]]) as slots:
            slot = slots[shelf.digests[1]]
            # Long enough for the abandoned load to have written.
            await asyncio.sleep(0.06)
            return await device.call(lambda: vector_cache.combined([(slot, 1.0)]))

    using = asyncio.create_task(use())
    await asyncio.sleep(0.02)
    may_go_on.set()
    torch.testing.assert_close(await asyncio.wait_for(using, 5), shelf.shift(shelf.digests[1]))


async def test_damaged_bytes_are_never_used_and_may_be_fetched_again(
    vector_cache: VectorCache, shelf: _Shelf
) -> None:
    digest, other = shelf.digests[:2]
    whole = shelf.files[digest]
    shelf.files[digest] = shelf.files[other]
    with pytest.raises(CorruptDataError):
        await _hold_briefly(vector_cache, digest)
    shelf.files[digest] = whole
    await _hold_briefly(vector_cache, digest)
    assert vector_cache.num_resident == 1


async def test_vectors_of_another_backbone_are_refused(
    backbone: Backbone, device: DeviceThread
) -> None:
    data = make_vector_file(0, backbone=make_description())

    async def fetch(_digest: str) -> bytes:
        return data

    vector_cache = VectorCache(backbone, device=device, fetch=fetch, num_slots=1)
    with pytest.raises(IncompatibleBackboneError):
        await _hold_briefly(vector_cache, sha256_hex(data))


async def test_more_vectors_than_slots_are_refused_and_not_waited_for(
    vector_cache: VectorCache, shelf: _Shelf
) -> None:
    with pytest.raises(InvalidInputError):
        await _hold_briefly(vector_cache, *shelf.digests[: NUM_SLOTS + 1])


async def test_the_memory_is_taken_once(vector_cache: VectorCache, backbone: Backbone) -> None:
    floats = (NUM_SLOTS + 1) * backbone.num_layers * 2 * backbone.hidden_size
    assert vector_cache.num_bytes == 4 * floats
