"""Work that ends when its client hangs up or its time is over; for the api and the worker.

Knows ASGI's messages and no framework.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import anyio
from starlette.types import Receive

from app.core.errors import DeadlineExceededError

T = TypeVar("T")

Send: TypeAlias = Callable[[T], Awaitable[None]]


class ClientGoneError(Exception):
    """The client hung up, so that no answer can reach it."""


async def run_until_disconnect(
    work: Coroutine[Any, Any, T], *, receive: Receive, seconds: float = math.inf
) -> T:
    """What the work returns, if it comes in time and while the client is there.

    Whatever comes first, the work has ended too when this returns: nothing of it outlives the
    request.

    The request's body must have been read.

    Raises:
        DeadlineExceededError: The time is over.
        ClientGoneError: The client hung up.
    """
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        scope.cancel()

    watching = asyncio.create_task(watch())
    try:
        with anyio.move_on_after(seconds) as scope:
            return await work
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    finally:
        # Nothing was awaited yet where the time was over before it began.
        work.close()
        watching.cancel()
        await asyncio.wait([watching])
    if is_gone:
        raise ClientGoneError
    raise DeadlineExceededError(f"The request took longer than {seconds:g} s")


def _first(failure: BaseException) -> BaseException:
    """What went wrong first, out of the groups that tasks put it into."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


async def sent_by(
    work: Callable[[Send[T]], Coroutine[Any, Any, object]],
    *,
    silence_seconds: float = math.inf,
    silent_for: float = 0.0,
) -> AsyncGenerator[T | None, None]:
    """What the work sends, as it comes, and None whenever nothing came for `silence_seconds`.

    The first silence has lasted for `silent_for` seconds when this begins.

    The work goes on one item ahead in a task of its own, which has ended when this ends or is
    closed. What it raises is raised here.
    """
    sender, receiver = anyio.create_memory_object_stream[T](0)

    async def run() -> None:
        async with sender:
            await work(sender.send)

    task = asyncio.create_task(run())
    patience = silence_seconds - silent_for
    try:
        with receiver:
            while True:
                item: T | None = None
                # Not around the yield: whoever asks may do so from another place.
                with anyio.move_on_after(patience):
                    try:
                        item = await receiver.receive()
                    except anyio.EndOfStream:
                        break
                yield item
                patience = silence_seconds
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
