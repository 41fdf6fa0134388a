"""Waiting for what another thread or process does, with an end."""

import asyncio
import time
from collections.abc import Callable

SECONDS = 120.0


async def until(condition: Callable[[], bool], *, seconds: float = SECONDS) -> None:
    """Returns as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], bool], *, seconds: float = SECONDS) -> None:
    """Returns as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
