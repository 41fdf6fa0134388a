"""Work of many steps on the device thread, beside sequences."""

import asyncio
import threading
import time

import pytest

from app.core.errors import (
    InvalidDatasetError,
    WorkerUnavailableError,
)
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt
from app.method.steps import BackgroundSteps, OffDevice
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from tests.fakes.models.generation import generate
from tests.fakes.models.sequences import maker
from tests.fakes.waiting import SECONDS, until

pytestmark = pytest.mark.anyio


async def test_background_work_and_sequences_share_the_device(
    backbone: Backbone, device: DeviceThread
) -> None:
    turns = 0
    is_over = threading.Event()

    def work() -> BackgroundSteps[str]:
        nonlocal turns
        while not is_over.is_set():
            time.sleep(0.002)
            yield None
            turns += 1
        return "done"

    working = asyncio.create_task(device.run_background(work()))
    finished = await asyncio.gather(
        *(device.generate(name, maker(backbone, name)) for name in ("a", "b"))
    )
    assert await device.call(lambda: 7) == 7
    assert not working.done()
    is_over.set()
    assert await working == "done"
    assert turns > 1
    alone = generate(backbone, [build_prompt(backbone, "what color a?", ())], max_new_tokens=6)
    assert tuple(finished[0].token_ids) == alone[0].token_ids


async def test_background_work_gets_its_share_while_sequences_keep_coming(
    backbone: Backbone, device: DeviceThread
) -> None:
    worked = 0.0
    is_over = threading.Event()

    def work() -> BackgroundSteps[float]:
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
        device.generate(str(index), maker(backbone, str(index), max_new_tokens=40))
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

    def work() -> BackgroundSteps[int]:
        answer: int = yield OffDevice(plan)
        threads.append(threading.current_thread().name)
        return answer

    working = asyncio.create_task(device.run_background(work()))
    await until(lambda: bool(threads))
    assert (await device.generate("beside", maker(backbone, "beside"))).error is None
    assert not working.done()
    may_end.set()
    assert await working == 7
    assert threads[0] != "device"
    assert threads[1] == "device"


async def test_work_that_goes_first_waits_for_no_save_of_a_training(device: DeviceThread) -> None:
    is_saving, may_end = threading.Event(), threading.Event()

    def save() -> None:
        is_saving.set()
        may_end.wait(SECONDS)

    def training() -> BackgroundSteps[str]:
        yield OffDevice(save)
        return "trained"

    def embedding() -> BackgroundSteps[str]:
        read: str = yield OffDevice(lambda: "read")
        return read

    working = asyncio.create_task(device.run_background(training()))
    await until(is_saving.is_set)
    try:
        first = device.run_background(embedding(), goes_first=True)
        assert await asyncio.wait_for(first, 20) == "read"
    finally:
        may_end.set()
    assert await working == "trained"


async def test_what_fails_on_the_other_thread_fails_the_background_work(
    device: DeviceThread,
) -> None:
    is_closed = threading.Event()

    def fail() -> None:
        raise InvalidDatasetError("too few")

    def work() -> BackgroundSteps[None]:
        try:
            yield OffDevice(fail)
        finally:
            is_closed.set()

    with pytest.raises(InvalidDatasetError, match="too few"):
        await device.run_background(work())
    assert is_closed.is_set()
    assert await device.call(lambda: 3) == 3


async def test_background_work_nobody_waits_for_is_closed_on_the_device(
    device: DeviceThread,
) -> None:
    closed_on: list[str] = []
    began = threading.Event()

    def work() -> BackgroundSteps[None]:
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


def _answer(value: int) -> BackgroundSteps[int]:
    yield None
    return value


async def test_stopping_ends_background_work(backbone: Backbone) -> None:
    engine = Engine(backbone, max_rows=1)
    device = DeviceThread(engine)
    device.start()
    is_closed = threading.Event()

    def work() -> BackgroundSteps[None]:
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


def _never_clean(began: threading.Event) -> BackgroundSteps[None]:
    try:
        while True:
            began.set()
            yield None
    finally:
        raise RuntimeError("a hook that is lost")


async def test_background_work_that_cannot_end_cleanly_leaves_the_device_usable(
    device: DeviceThread,
) -> None:
    began = threading.Event()
    working = asyncio.create_task(device.run_background(_never_clean(began)))
    await until(began.is_set)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await device.call(lambda: 3) == 3


async def test_stopping_tells_everyone_although_work_cannot_end_cleanly(
    device: DeviceThread,
) -> None:
    began = threading.Event()
    working = [
        asyncio.create_task(device.run_background(work))
        for work in (_never_clean(began), _answer(3))
    ]
    await until(began.is_set)
    await asyncio.to_thread(device.stop)
    found = await asyncio.wait_for(asyncio.gather(*working, return_exceptions=True), SECONDS)
    assert [type(one) for one in found] == [WorkerUnavailableError] * 2
