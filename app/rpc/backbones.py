"""Which workers serve which backbones."""

from collections.abc import Sequence
from typing import Final

from app.core.errors import IncompatibleBackboneError, WorkerUnavailableError
from app.rpc.client import WorkerClient
from app.rpc.messages import HealthResponse

RETRY_AFTER_SECONDS: Final = 2.0


class ServingWorkers:
    """The workers that answer requests, as of about a second ago."""

    def __init__(self, workers: WorkerClient) -> None:
        self._workers = workers

    async def now(self) -> tuple[HealthResponse, ...]:
        """At least one worker that is ready to serve.

        Raises:
            WorkerUnavailableError: There is none.
        """
        found = await self._workers.serving()
        if not found:
            raise WorkerUnavailableError(
                "No worker is ready to serve", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        return found


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
