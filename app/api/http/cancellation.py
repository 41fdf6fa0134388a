"""Runs a request's work against its deadline and against the client that may hang up."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from app.api.http.errors import ClientGoneError
from app.core.errors import DeadlineExceededError

T = TypeVar("T")


async def run_until_disconnect(
    job: Coroutine[Any, Any, T], *, request: Request, seconds: float
) -> T:
    """The job's result, if it comes before the deadline and while the client is there.

    Whatever comes first, the job has ended too when this returns: it is cancelled and
    waited for, so nothing of it outlives the request.

    Args:
        job: The work.
        request: Whose client is watched; its body must have been read.
        seconds: The time that is left.

    Raises:
        DeadlineExceededError: The time is over.
        ClientGoneError: The client hung up.
    """
    work = asyncio.ensure_future(job)
    watcher = asyncio.ensure_future(_until_disconnect(request))
    try:
        done, _ = await asyncio.wait(
            {work, watcher}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if work in done:
            return work.result()
        if watcher in done:
            raise ClientGoneError
        raise DeadlineExceededError(f"The request took longer than {seconds:g} s")
    finally:
        for task in (work, watcher):
            task.cancel()
        await asyncio.gather(work, watcher, return_exceptions=True)


async def iterate_until_disconnect(
    items: AsyncGenerator[T, None], *, request: Request, deadline: float, silence_seconds: float
) -> AsyncGenerator[T | None, None]:
    """The items as they come, and None whenever nothing came for `silence_seconds`.

    However it ends, `items` is closed when this ends or is closed itself.

    Args:
        items: The work, piece by piece.
        request: Whose client is watched; its body must have been read.
        deadline: When the time is over, on the clock of `time.monotonic`.
        silence_seconds: How long nothing comes before that is said.

    Raises:
        DeadlineExceededError: The time is over.
        ClientGoneError: The client hung up.
    """
    watcher = asyncio.ensure_future(_until_disconnect(request))
    coming = asyncio.ensure_future(_next(items))
    try:
        while True:
            left = deadline - time.monotonic()
            done, _ = await asyncio.wait(
                {coming, watcher},
                timeout=max(0.0, min(silence_seconds, left)),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if watcher in done:
                raise ClientGoneError
            if coming in done:
                found = coming.result()
                if not found:
                    return
                yield found[0]
                coming = asyncio.ensure_future(_next(items))
            elif left <= silence_seconds:
                raise DeadlineExceededError("The answer was not complete in time")
            else:
                yield None
    finally:
        for task in (coming, watcher):
            task.cancel()
        await asyncio.gather(coming, watcher, return_exceptions=True)
        await items.aclose()


async def merged(
    streams: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """The items of several streams as they come, each with the place of its stream.

    All streams are closed when this ends or is closed itself.
    """
    coming = {asyncio.ensure_future(_next(one)): place for place, one in enumerate(streams)}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda one: coming[one]):
                place = coming.pop(task)
                for item in task.result():
                    coming[asyncio.ensure_future(_next(streams[place]))] = place
                    yield place, item
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


async def _next(items: AsyncGenerator[T, None]) -> tuple[T] | tuple[()]:
    """The next item alone, or nothing at the end; a task must not raise StopAsyncIteration."""
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return ()


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
