import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from starlette.types import Message, Receive

from app.core.cancellation import ClientGoneError, Send, run_until_disconnect, sent_by
from app.core.errors import DeadlineExceededError, NotFoundError

pytestmark = pytest.mark.anyio

GONE: Message = {"type": "http.disconnect"}
LATE: Message = {"type": "http.request", "body": b"late", "more_body": True}


def arriving(*messages: Message) -> Receive:
    """The messages one by one, and then nothing."""
    queue = list(messages)

    async def receive() -> Message:
        if queue:
            return queue.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    return receive


async def endless(ended: list[str]) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("work")


class TestRunUntilDisconnect:
    async def test_a_result_is_returned(self) -> None:
        async def work() -> int:
            return 3

        assert await run_until_disconnect(work(), receive=arriving(), seconds=5) == 3

    async def test_an_error_of_the_work_is_raised_as_it_is(self) -> None:
        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
                raise NotFoundError("x")

        with pytest.raises(NotFoundError, match=r"^x$"):
            await run_until_disconnect(work(), receive=arriving(), seconds=5)

    async def test_a_timeout_of_the_work_is_not_taken_for_the_deadline(self) -> None:
        async def work() -> None:
            raise TimeoutError("of something else")

        with pytest.raises(TimeoutError, match="of something else"):
            await run_until_disconnect(work(), receive=arriving(), seconds=5)

    @pytest.mark.parametrize(
        ("messages", "seconds", "error"),
        [
            ((), 0.05, DeadlineExceededError),
            ((LATE, GONE), 0.05, ClientGoneError),
            ((GONE,), math.inf, ClientGoneError),
        ],
    )
    async def test_whoever_comes_first_the_work_has_ended_too(
        self, messages: tuple[Message, ...], seconds: float, error: type[Exception]
    ) -> None:
        ended: list[str] = []
        before = asyncio.all_tasks()
        with pytest.raises(error):
            await run_until_disconnect(endless(ended), receive=arriving(*messages), seconds=seconds)
        assert ended == ["work"]
        assert asyncio.all_tasks() == before

    async def test_nothing_begins_when_the_time_is_over(self) -> None:
        with pytest.raises(DeadlineExceededError):
            await run_until_disconnect(endless([]), receive=arriving(), seconds=-1)

    async def test_cancelling_whoever_waits_cancels_the_work(self) -> None:
        ended: list[str] = []
        task = asyncio.create_task(
            run_until_disconnect(endless(ended), receive=arriving(), seconds=60)
        )
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["work"]


def counted(
    ended: list[str],
    *,
    pause_after: int = 99,
    silence_seconds: float = 15,
    silent_for: float = 0,
) -> AsyncGenerator[int | None, None]:
    async def work(send: Send[int]) -> None:
        try:
            for number in range(3):
                if number == pause_after:
                    await asyncio.sleep(60)
                await send(number)
        finally:
            ended.append("work")

    return sent_by(work, silence_seconds=silence_seconds, silent_for=silent_for)


class TestSentBy:
    async def test_all_items_come(self) -> None:
        ended: list[str] = []
        before = asyncio.all_tasks()
        assert [item async for item in counted(ended)] == [0, 1, 2]
        assert ended == ["work"]
        assert asyncio.all_tasks() == before

    async def test_silence_is_told(self) -> None:
        items = counted([], pause_after=1, silence_seconds=0.02)
        async with aclosing(items):
            assert [await anext(items) for _ in range(3)] == [0, None, None]

    async def test_the_first_silence_may_have_begun_before(self) -> None:
        items = counted([], pause_after=0, silence_seconds=50, silent_for=100)
        async with aclosing(items), asyncio.timeout(40):
            assert await anext(items) is None

    async def test_no_item_is_lost_to_a_silence(self) -> None:
        async def work(send: Send[int]) -> None:
            for number in range(200):
                await asyncio.sleep(0.001 * (number % 3))
                await send(number)

        items = [item async for item in sent_by(work, silence_seconds=0.001)]
        assert [item for item in items if item is not None] == list(range(200))

    async def test_an_error_comes_after_what_was_sent(self) -> None:
        async def work(send: Send[int]) -> None:
            await send(1)
            raise NotFoundError("x")

        items = sent_by(work)
        assert await anext(items) == 1
        with pytest.raises(NotFoundError):
            await anext(items)

    async def test_closing_it_ends_the_work(self) -> None:
        ended: list[str] = []
        before = asyncio.all_tasks()
        items = counted(ended)
        assert await anext(items) == 0
        await items.aclose()
        assert ended == ["work"]
        assert asyncio.all_tasks() == before

    async def test_cancelling_whoever_waits_ends_the_work(self) -> None:
        ended: list[str] = []
        task = asyncio.ensure_future(anext(counted(ended, pause_after=0)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["work"]
