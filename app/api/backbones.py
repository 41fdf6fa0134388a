"""Which workers serve which backbones."""

import time
from collections.abc import Sequence
from typing import Final

from app.core.errors import IncompatibleBackboneError, WorkerUnavailableError
from app.worker.client import WorkerClient
from app.worker.messages import HealthResponse

RETRY_AFTER_SECONDS: Final = 2.0
MAX_AGE_SECONDS: Final = 1.0


class ServingWorkers:
    """The workers that answer requests, as of at most a second ago."""

    def __init__(self, workers: WorkerClient) -> None:
        self._workers = workers
        self._found: tuple[HealthResponse, ...] = ()
        self._asked = float("-inf")

    async def now(self) -> tuple[HealthResponse, ...]:
        """At least one worker that is ready to serve.

        Raises:
            WorkerUnavailableError: There is none.
        """
        if not self._found or time.monotonic() - self._asked > MAX_AGE_SECONDS:
            self._found = await self.ask()
            self._asked = time.monotonic()
        if not self._found:
            raise WorkerUnavailableError(
                "No worker is ready to serve", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        return self._found

    async def ask(self) -> tuple[HealthResponse, ...]:
        """The workers that are ready to serve, asked right now; possibly none."""
        return tuple(
            health
            for health in await self._workers.health()
            if health.status == "ready" and health.role != "train"
        )


def backbone_for(fingerprints: Sequence[str], serving: Sequence[HealthResponse]) -> HealthResponse:
    """The worker whose backbone fits all of the vectors; any worker when there are no vectors.

    Args:
        fingerprints: Of the backbones that the vectors were made for.
        serving: The workers there are; at least one.

    Raises:
        IncompatibleBackboneError: The vectors differ, or no worker serves their backbone.
    """
    found = sorted(set(fingerprints))
    served = {health.backbone.fingerprint: health for health in reversed(serving)}
    if not found:
        return serving[0]
    if len(found) == 1 and found[0] in served:
        return served[found[0]]
    wanted = sorted(served)
    raise IncompatibleBackboneError(
        f"Wanted vectors of backbone {_short(wanted)}, found {_short(found)}",
        details={"wanted": wanted, "found": found},
    )


def _short(fingerprints: Sequence[str]) -> str:
    return " or ".join(fingerprint[:12] for fingerprint in fingerprints)
