"""The events of training jobs as server-sent events, from any point on, until the job ends.

One task reads for all streams, so they need one connection of the database however many they are.
"""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final, TypeAlias
from uuid import UUID

import anyio
from fastapi.sse import ServerSentEvent

from app.library.database import Sessions, logging_failures
from app.library.records import JobEvent
from app.library.training.jobs import new_events

POLL_SECONDS: Final = 0.5
RECONNECT_MILLISECONDS: Final = 2000

_News: TypeAlias = tuple[list[JobEvent], bool]


class JobEvents:
    """Reads the next events of all jobs that somebody listens to; for one event loop.

    A database that is away is asked again at the next look: streams are only silent meanwhile.
    """

    def __init__(self, sessions: Sessions, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._sessions = sessions
        self._poll_seconds = poll_seconds
        # Who waits for the next events of a job behind an event's number.
        self._listeners: dict[asyncio.Future[_News], tuple[UUID, int]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Ends the reading; whoever listens is cancelled."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        for news in self._listeners:
            news.cancel()

    async def stream(
        self, job_id: UUID, *, after: int = 0, silence_seconds: float = math.inf
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """The job's events after number `after`; their ids are what a reconnect sends back.

        A comment comes whenever nothing did for `silence_seconds`.
        """
        yield ServerSentEvent(comment="events", retry=RECONNECT_MILLISECONDS)
        is_over = False
        while not is_over:
            try:
                with anyio.fail_after(silence_seconds):
                    events, is_over = await self._next(job_id, after)
            except TimeoutError:
                yield ServerSentEvent(comment="ping")
                continue
            for event in events:
                after = event.sequence
                yield ServerSentEvent(id=str(event.sequence), event=event.kind, data=event.data)

    async def _next(self, job_id: UUID, after: int) -> _News:
        news: asyncio.Future[_News] = asyncio.get_running_loop().create_future()
        self._listeners[news] = (job_id, after)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="job events")
        try:
            return await news
        finally:
            del self._listeners[news]

    async def _read(self) -> None:
        """Looks again and again while somebody listens."""
        while self._listeners:
            # Those who listen wait for what comes, not for this task.
            with logging_failures("cannot read the events of jobs"):
                await self._look()
            await asyncio.sleep(self._poll_seconds)

    async def _look(self) -> None:
        # Not those who come meanwhile: they may stand before what is read.
        listeners = dict(self._listeners)
        positions: dict[UUID, int] = {}
        for job_id, after in listeners.values():
            positions[job_id] = min(after, positions.get(job_id, after))
        async with self._sessions() as session:
            found = await new_events(session, positions)
        for news, (job_id, after) in listeners.items():
            all_events, is_over = found[job_id]
            events = [event for event in all_events if event.sequence > after]
            if (events or is_over) and not news.done():
                news.set_result((events, is_over))
