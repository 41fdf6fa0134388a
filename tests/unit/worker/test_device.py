"""The device thread with a real engine and a tiny backbone."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future

import pytest
import torch

from app.core.errors import (
    InvalidDatasetError,
    JobCancelledError,
    OutOfDeviceMemoryError,
    UnavailableError,
    VLibraryError,
    WorkerUnavailableError,
)
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.method.steering.generation import generate
from app.method.steps import OffDevice
from app.rpc.generation import SamplingParams
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from app.worker.long_work import LongSteps
from tests.fakes.waiting import SECONDS, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def device(backbone: Backbone) -> AsyncIterator[DeviceThread]:
    engine = Engine(backbone, max_rows=4)
    running = DeviceThread(engine, training_share=0.5)
    running.start()
    yield running
    await asyncio.to_thread(running.stop)
    engine.close()


def _maker(backbone: Backbone, name: str, *, max_new_tokens: int = 6) -> Callable[[], Sequence]:
    prompt = build_prompt(backbone, f"what color {name}?", ())

    def make() -> Sequence:
        return Sequence(
            id=name,
            inputs=encode_prompts(backbone, [prompt]).inputs,
            sampling=SamplingParams(max_tokens=max_new_tokens),
        )

    return make


async def test_calls_run_on_one_thread_in_order(device: DeviceThread) -> None:
    threads: list[str] = []
    calls = [device.call(lambda: threads.append(threading.current_thread().name)) for _ in range(3)]
    await asyncio.gather(*calls)
    assert threads == ["device"] * 3


async def test_sequences_are_answered_together(backbone: Backbone, device: DeviceThread) -> None:
    names = [f"n{index}" for index in range(6)]
    finished = await asyncio.gather(
        *(device.generate(name, _maker(backbone, name)) for name in names)
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
    assert (await device.generate("good", _maker(backbone, "good"))).error is None


async def test_cancelling_frees_the_row_within_a_step(
    backbone: Backbone, device: DeviceThread
) -> None:
    asking = asyncio.create_task(
        device.generate("long", _maker(backbone, "long", max_new_tokens=900))
    )
    await until(lambda: device.num_running > 0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    # One order later the thread has seen the cancellation.
    await device.call(lambda: None)
    assert (device.num_running, device.num_waiting) == (0, 0)


async def test_long_work_and_sequences_share_the_device(
    backbone: Backbone, device: DeviceThread
) -> None:
    turns = 0
    is_over = threading.Event()

    def work() -> LongSteps[str]:
        nonlocal turns
        while not is_over.is_set():
            time.sleep(0.002)
            yield None
            turns += 1
        return "done"

    working = asyncio.create_task(device.run_background(work()))
    finished = await asyncio.gather(
        *(device.generate(name, _maker(backbone, name)) for name in ("a", "b"))
    )
    assert await device.call(lambda: 7) == 7
    assert not working.done()
    is_over.set()
    assert await working == "done"
    assert turns > 1
    alone = generate(backbone, [build_prompt(backbone, "what color a?", ())], max_new_tokens=6)
    assert tuple(finished[0].token_ids) == alone[0].token_ids


async def test_long_work_gets_its_share_while_sequences_keep_coming(
    backbone: Backbone, device: DeviceThread
) -> None:
    worked = 0.0
    is_over = threading.Event()

    def work() -> LongSteps[float]:
        nonlocal worked
        began = time.monotonic()
        while not is_over.is_set():
            step_began = time.monotonic()
            time.sleep(0.01)
            worked += time.monotonic() - step_began
            yield None
        return time.monotonic() - began

    working = asyncio.create_task(device.run_background(work()))
    tasks = [
        device.generate(str(index), _maker(backbone, str(index), max_new_tokens=40))
        for index in range(8)
    ]
    await asyncio.gather(*tasks)
    is_over.set()
    total = await working
    # Half is its share; a turn may run over by one step.
    assert 0.2 < worked / total < 0.8


async def test_answers_go_on_while_another_thread_works_for_a_training(
    backbone: Backbone, device: DeviceThread
) -> None:
    may_end = threading.Event()
    threads: list[str] = []

    def plan() -> int:
        threads.append(threading.current_thread().name)
        may_end.wait(SECONDS)
        return 7

    def work() -> LongSteps[int]:
        answer: int = yield OffDevice(plan)
        threads.append(threading.current_thread().name)
        return answer

    working = asyncio.create_task(device.run_background(work()))
    await until(lambda: bool(threads))
    assert (await device.generate("beside", _maker(backbone, "beside"))).error is None
    assert not working.done()
    may_end.set()
    assert await working == 7
    assert threads[0] != "device"
    assert threads[1] == "device"


async def test_what_fails_on_the_other_thread_fails_the_long_work(device: DeviceThread) -> None:
    is_closed = threading.Event()

    def fail() -> None:
        raise InvalidDatasetError("too few")

    def work() -> LongSteps[None]:
        try:
            yield OffDevice(fail)
        finally:
            is_closed.set()

    with pytest.raises(InvalidDatasetError, match="too few"):
        await device.run_background(work())
    assert is_closed.is_set()
    assert await device.call(lambda: 3) == 3


async def test_long_work_nobody_waits_for_is_closed_on_the_device(device: DeviceThread) -> None:
    closed_on: list[str] = []
    began = threading.Event()

    def work() -> LongSteps[None]:
        try:
            while True:
                began.set()
                yield None
        finally:
            closed_on.append(threading.current_thread().name)

    working = asyncio.create_task(device.run_background(work()))
    await until(began.is_set)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await until(lambda: bool(closed_on))
    assert closed_on == ["device"]
    assert await device.run_background(_answer(3)) == 3


def _answer(value: int) -> LongSteps[int]:
    yield None
    return value


async def test_stopping_ends_long_work(backbone: Backbone) -> None:
    engine = Engine(backbone, max_rows=1)
    device = DeviceThread(engine)
    device.start()
    is_closed = threading.Event()

    def work() -> LongSteps[None]:
        try:
            while True:
                yield None
        finally:
            is_closed.set()

    working = asyncio.create_task(device.run_background(work()))
    await device.call(lambda: None)
    await asyncio.to_thread(device.stop)
    with pytest.raises(WorkerUnavailableError):
        await working
    assert is_closed.is_set()
    engine.close()


async def test_stopping_fails_what_is_left(backbone: Backbone) -> None:
    engine = Engine(backbone, max_rows=1)
    device = DeviceThread(engine)
    device.start()
    tasks = [
        asyncio.create_task(
            device.generate(str(index), _maker(backbone, str(index), max_new_tokens=900))
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
        await device.generate("late", _maker(backbone, "late"))
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
