"""The workers there are: what was last heard of each, and which of them to ask.

Knows their health and nothing of what they are asked.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

import httpx

from app.core.errors import IncompatibleBackboneError, VLibraryError
from app.worker.messages import HealthResponse
from app.worker.replies import read_answer, unavailable

HEALTH_TIMEOUT_SECONDS: Final = 2.0
HEALTH_AGE_SECONDS: Final = 1.0


@dataclass(kw_only=True)
class Peer:
    """One worker URL with what was last heard of it."""

    url: str
    in_flight: int = 0
    health: HealthResponse | None = None
    checked: float = float("-inf")

    @property
    def load(self) -> int:
        """Requests known to be there: the worker's own count, or ours where it lags behind."""
        known = 0 if self.health is None else self.health.running + self.health.waiting
        return max(known, self.in_flight)


class Peers:
    """The workers behind a list of URLs; for one event loop.

    Args:
        urls: Base URLs of workers.
        http: With which they are asked for their health; closed by the caller.
    """

    def __init__(self, urls: Sequence[str], *, http: httpx.AsyncClient) -> None:
        self.all = tuple(Peer(url=url.rstrip("/")) for url in urls)
        self._http = http
        self._refreshing = asyncio.Lock()

    async def health(self) -> tuple[HealthResponse, ...]:
        """Ask every worker now; those that do not answer are left out."""
        await asyncio.gather(*(self._refresh(peer) for peer in self.all))
        return tuple(peer.health for peer in self.all if peer.health is not None)

    async def choose(self, fingerprint: str | None, *, without: Collection[str] = ()) -> Peer:
        """The least loaded fitting worker; only what is out of date is asked for its health.

        Args:
            fingerprint: Of the backbone that it must have; any when not given.
            without: URLs that are out of the question.

        Raises:
            WorkerUnavailableError: No worker is ready to serve.
            IncompatibleBackboneError: Workers are ready, none has the backbone.
        """
        await self._refresh_stale()
        alive = [
            (peer, peer.health)
            for peer in self.all
            if peer.health is not None and peer.url not in without
        ]
        serving = [
            (peer, health)
            for peer, health in alive
            if health.status == "ready" and health.role != "train"
        ]
        if not serving:
            raise unavailable(f"none of {len(self.all)} workers is ready to serve")
        fitting = [
            peer
            for peer, health in serving
            if fingerprint is None or health.backbone.fingerprint == fingerprint
        ]
        if not fitting:
            found = sorted({health.backbone.fingerprint for _, health in serving})
            raise IncompatibleBackboneError(
                f"no worker serves the wanted backbone {fingerprint}; found {', '.join(found)}",
                details={"wanted": fingerprint, "found": list(found)},
            )
        return min(fitting, key=lambda peer: peer.load)

    async def _refresh_stale(self) -> None:
        async with self._refreshing:
            oldest = monotonic() - HEALTH_AGE_SECONDS
            stale = [peer for peer in self.all if peer.checked < oldest or peer.health is None]
            await asyncio.gather(*(self._refresh(peer) for peer in stale))

    async def _refresh(self, peer: Peer) -> None:
        try:
            response = await self._http.get(peer.url + "/health", timeout=HEALTH_TIMEOUT_SECONDS)
            peer.health = read_answer(response, HealthResponse)
        except (httpx.HTTPError, VLibraryError):
            peer.health = None
        peer.checked = monotonic()
