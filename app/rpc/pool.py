"""The workers there are: what was last heard of each, and which of them to ask."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

import httpx

from app.core.errors import IncompatibleBackboneError, VLibraryError
from app.rpc.decoding import read_answer, unavailable
from app.rpc.messages import HealthResponse

# A busy worker may be silent for seconds and is still there, and a busy api may not look after a
# connection for as long: only who refuses the connection is gone at once. The silence is what
# Kubernetes takes by default: three failures, 10 s apart.
SILENCE_SECONDS: Final = 30.0
HEALTH_AGE_SECONDS: Final = 1.0
UNREADY_AGE_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 0.05
NEVER: Final = float("-inf")


@dataclass(kw_only=True)
class WorkerState:
    """One worker URL with what was last heard of it.

    Attributes:
        in_flight: Our requests that are there.
        health: What it said last; none when it did not answer.
        refusal: Why it said nothing, such as that our secret is another one; empty if unknown.
        asked_at: When it was last asked for its health, on the monotonic clock.
        checked: When the outcome of that was last known.
    """

    url: str
    in_flight: int = 0
    health: HealthResponse | None = None
    refusal: str = ""
    asked_at: float = NEVER
    checked: float = NEVER
    asking: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        """Requests known to be there: the worker's own count, or ours where it lags behind."""
        known = 0 if self.health is None else self.health.running + self.health.waiting
        return max(known, self.in_flight)


class WorkerPool:
    """The workers behind a list of URLs; for one event loop.

    A worker is asked for its health when somebody wants to know and nothing was heard for a
    second, whether it answered then or not; while no worker is ready, sooner. The question is a
    task of its own, shared by all who wait for it.
    """

    def __init__(self, urls: Sequence[str], *, http: httpx.AsyncClient) -> None:
        self.all = tuple(WorkerState(url=url.rstrip("/")) for url in urls)
        self._http = http

    async def aclose(self) -> None:
        """Give up the questions that are under way."""
        asking = [worker.asking for worker in self.all if worker.asking is not None]
        for question in asking:
            question.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def serving(self) -> tuple[HealthResponse, ...]:
        """What was last heard of the workers that are ready to serve, as of about a second ago.

        Waits for those of which nothing was heard yet, and for one that failed only while no
        other is ready.

        Raises:
            WorkerUnavailableError: There is none.
        """
        await self._await_health(
            self._ask_stale(self._oldest()),
            is_enough=lambda: (
                all(worker.checked > NEVER for worker in self.all) and bool(self._ready())
            ),
        )
        if not (found := self._ready()):
            raise self._none_ready("No worker is ready to serve")
        return tuple(health for _, health in found)

    async def training(self) -> tuple[HealthResponse, ...]:
        """What was last heard of the workers that train, as of about a second ago; maybe none."""
        await self._await_health(
            self._ask_stale(self._oldest()),
            is_enough=lambda: all(worker.checked > NEVER for worker in self.all),
        )
        found = [worker.health for worker in self.all if worker.health is not None]
        return tuple(one for one in found if one.status == "ready" and one.role != "serve")

    async def ready(self) -> tuple[HealthResponse, ...]:
        """The workers that are ready to serve, of which one at least was heard within a second.

        Raises:
            WorkerUnavailableError: There is none.
        """
        await self.choose(None)
        return tuple(health for _, health in self._ready())

    async def choose(
        self, fingerprint: str | None, *, without: Collection[str] = ()
    ) -> WorkerState:
        """The least loaded fitting worker of those heard within a second.

        Waits for those that have to be asked only while no fitting one is known. Any backbone will
        do where none is given.

        Raises:
            WorkerUnavailableError: No worker is ready to serve.
            IncompatibleBackboneError: Workers are ready, none has the backbone.
        """
        oldest = self._oldest()

        def fitting() -> list[WorkerState]:
            # What was heard longer ago may be of a worker that serves another backbone by now.
            return [
                worker
                for worker, health in self._ready(without)
                if worker.checked >= oldest and fingerprint in {None, health.backbone.fingerprint}
            ]

        await self._await_health(self._ask_stale(oldest), is_enough=lambda: bool(fitting()))
        found = fitting()
        if not found:
            raise self._none_fits(fingerprint, without)
        return min(found, key=lambda worker: worker.load)

    def _none_fits(self, fingerprint: str | None, without: Collection[str]) -> VLibraryError:
        ready = self._ready(without)
        if not ready:
            return self._none_ready(f"none of {len(self.all)} workers is ready to serve")
        found = sorted({health.backbone.fingerprint for _, health in ready})
        return IncompatibleBackboneError(
            f"no worker serves the wanted backbone {fingerprint}; found {', '.join(found)}",
            details={"wanted": fingerprint, "found": list(found)},
        )

    def _none_ready(self, message: str) -> VLibraryError:
        reasons = sorted({worker.refusal for worker in self.all if worker.refusal})
        return unavailable("; ".join([message, *reasons]))

    def _ready(self, without: Collection[str] = ()) -> list[tuple[WorkerState, HealthResponse]]:
        return [
            (worker, worker.health)
            for worker in self.all
            if worker.url not in without
            and worker.health is not None
            and worker.health.status == "ready"
            and worker.health.role != "train"
        ]

    def _oldest(self) -> float:
        """When a worker must have been heard of that is not asked again."""
        age = HEALTH_AGE_SECONDS if self._ready() else min(UNREADY_AGE_SECONDS, HEALTH_AGE_SECONDS)
        return monotonic() - age

    def _ask_stale(self, oldest: float) -> set[asyncio.Task[None]]:
        return {self._ask(worker) for worker in self.all if worker.checked < oldest}

    def _ask(self, worker: WorkerState) -> asyncio.Task[None]:
        if worker.asking is None or worker.asking.done():
            worker.asked_at = monotonic()
            worker.asking = asyncio.create_task(self._refresh(worker))
        return worker.asking

    async def _await_health(
        self, asking: set[asyncio.Task[None]], *, is_enough: Callable[[], bool]
    ) -> None:
        """Returns when enough is known, or all there is to know.

        Whoever was asked just now has a moment in any case: usually all answer at once, and the
        first to do so is not always the least loaded.
        """
        latest = monotonic() - GRACE_SECONDS
        recent = asking & {worker.asking for worker in self.all if worker.asked_at > latest}
        if recent:
            await asyncio.wait(recent, timeout=GRACE_SECONDS)
        open_ones = {question for question in asking if not question.done()}
        while open_ones and not is_enough():
            _, open_ones = await asyncio.wait(open_ones, return_when=asyncio.FIRST_COMPLETED)
        for question in asking - open_ones:
            if not question.cancelled():
                question.result()

    async def _refresh(self, worker: WorkerState) -> None:
        worker.refusal = ""
        try:
            # The client's own timeout begins anew with every byte.
            async with asyncio.timeout(SILENCE_SECONDS):
                worker.health = await self._health_of(worker)
        except (httpx.HTTPError, TimeoutError):
            worker.health = None
        except VLibraryError as error:
            worker.health, worker.refusal = None, error.message
        worker.checked = monotonic()

    async def _health_of(self, worker: WorkerState) -> HealthResponse:
        url = worker.url + "/health"
        try:
            response = await self._http.get(url, timeout=SILENCE_SECONDS)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # It may have closed an idle connection just then; a new one tells whether it is there.
            response = await self._http.get(url, timeout=SILENCE_SECONDS)
        return read_answer(response, HealthResponse)
