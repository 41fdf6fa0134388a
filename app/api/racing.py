"""Runs a request's work against its deadline and against the client that may hang up."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from app.api.errors import ClientGoneError
from app.core.errors import DeadlineExceededError

T = TypeVar("T")


async def race(job: Coroutine[Any, Any, T], *, request: Request, seconds: float) -> T:
    """The job's result, if it comes before the deadline and while the client is there.

    Whatever ends the race first, the job has ended too when this returns: it is cancelled and
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


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
