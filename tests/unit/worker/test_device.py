"""The device thread with a real engine and a tiny backbone."""

import asyncio
import threading
import time
from concurrent.futures import Future

import pytest
import torch

from app.core.errors import (
    JobCancelledError,
    OutOfDeviceMemoryError,
    UnavailableError,
    VLibraryError,
    WorkerUnavailableError,
)
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from tests.fakes.models.generation import generate
from tests.fakes.models.sequences import maker
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio


async def test_calls_run_on_one_thread_in_order(device: DeviceThread) -> None:
    threads: list[str] = []
    calls = [device.call(lambda: threads.append(threading.current_thread().name)) for _ in range(3)]
    await asyncio.gather(*calls)
    assert threads == ["device"] * 3


async def test_sequences_are_answered_together(backbone: Backbone, device: DeviceThread) -> None:
    names = [f"n{index}" for index in range(6)]
    finished = await asyncio.gather(
        *(device.generate(name, maker(backbone, name)) for name in names)
    )
    assert [one.id for one in finished] == names
    alone = generate(backbone, [build_prompt(backbone, "what color n3?", ())], max_new_tokens=6)
    assert tuple(finished[3].token_ids) == alone[0].token_ids


async def test_a_call_that_fails_fails_its_caller_only(device: DeviceThread) -> None:
    def no_room() -> None:
        raise torch.OutOfMemoryError("2 GiB")

    def nonsense() -> None:
        raise KeyError("secret prompt")

    with pytest.raises(OutOfDeviceMemoryError):
        await device.call(no_room)
    with pytest.raises(VLibraryError, match="KeyError") as caught:
        await device.call(nonsense)
    assert "secret" not in str(caught.value)
    assert await device.call(lambda: 3) == 3


async def test_a_sequence_that_cannot_be_made_fails_its_request_only(
    backbone: Backbone, device: DeviceThread
) -> None:
    def fail() -> Sequence:
        raise JobCancelledError("no")

    with pytest.raises(JobCancelledError):
        await device.generate("bad", fail)
    assert (await device.generate("good", maker(backbone, "good"))).error is None


async def test_cancelling_frees_the_row_within_a_step(
    backbone: Backbone, device: DeviceThread
) -> None:
    asking = asyncio.create_task(
        device.generate("long", maker(backbone, "long", max_new_tokens=900))
    )
    await until(lambda: device.num_running > 0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    # One order later the thread has seen the cancellation.
    await device.call(lambda: None)
    assert device._engine is not None
    assert not device._engine.has_work


async def test_whoever_leaves_before_there_is_an_engine_breaks_nothing(backbone: Backbone) -> None:
    device = DeviceThread()
    device.start()
    try:
        held = asyncio.create_task(device.call(lambda: time.sleep(0.2)))
        asking = asyncio.create_task(device.generate("early", maker(backbone, "early")))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.gather(held, asking, return_exceptions=True)
        assert await device.call(lambda: "alive") == "alive"
    finally:
        device.stop()


async def test_stopping_fails_what_is_left(backbone: Backbone) -> None:
    engine = Engine(backbone, max_rows=1)
    device = DeviceThread(engine)
    device.start()
    tasks = [
        asyncio.create_task(
            device.generate(str(index), maker(backbone, str(index), max_new_tokens=900))
        )
        for index in range(3)
    ]
    await until(lambda: device.num_running > 0)
    await asyncio.to_thread(device.stop)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    # Those have begun, so they are not for another worker.
    assert {type(one) for one in outcomes} == {UnavailableError}
    with pytest.raises(WorkerUnavailableError):
        await device.call(lambda: None)
    engine.close()


async def test_a_lost_device_is_reported_and_everything_fails(backbone: Backbone) -> None:
    is_broken = threading.Event()
    engine = Engine(backbone, max_rows=1)
    device = DeviceThread(engine, on_broken=is_broken.set)
    device.start()

    def lose() -> None:
        raise torch.AcceleratorError("device-side assert")

    with pytest.raises(VLibraryError):
        await device.call(lose)
    assert await asyncio.to_thread(is_broken.wait, 5)
    with pytest.raises(WorkerUnavailableError):
        await device.generate("late", maker(backbone, "late"))
    engine.close()


class _Cancelled(Future[None]):
    """Cancelled by whoever waits, just after somebody asked whether it is done."""

    def done(self) -> bool:
        was_done = super().done()
        self.cancel()
        return was_done


async def test_a_call_cancelled_while_the_device_ends_leaves_no_other_without_an_end(
    backbone: Backbone,
) -> None:
    engine = Engine(backbone, max_rows=2)
    device = DeviceThread(engine)
    futures: list[Future[None]] = [_Cancelled(), Future()]
    for future in futures:
        device._tasks.put((lambda: None, future))
    device._fail_the_rest()
    assert isinstance(futures[1].exception(timeout=0), WorkerUnavailableError)
    engine.close()
