"""Which backbones are served now, and which are known from earlier."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.api.dependencies import Services
from app.core.backbones import BackboneDescription
from app.core.errors import IncompatibleBackboneError, NotFoundError, WorkerUnavailableError
from app.library.backbones import get_backbone
from app.library.database import run_transaction
from app.worker.client import WorkerClient
from app.worker.messages import HealthResponse

RETRY_AFTER_SECONDS = 2.0


async def serving_workers(workers: WorkerClient) -> tuple[HealthResponse, ...]:
    """The workers that answer requests now.

    Raises:
        WorkerUnavailableError: There are none.
    """
    healthy = await workers.health()
    serving = tuple(
        health for health in healthy if health.status == "ready" and health.role != "train"
    )
    if not serving:
        raise WorkerUnavailableError(
            "No worker is ready to serve", retry_after_seconds=RETRY_AFTER_SECONDS
        )
    return serving


def backbone_for(
    fingerprints: Sequence[str], serving: Sequence[HealthResponse]
) -> HealthResponse:
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


async def find_backbone(services: Services, fingerprint: str) -> BackboneDescription:
    """The description of a backbone that is served now or was seen before.

    Raises:
        IncompatibleBackboneError: Nobody knows it.
    """

    async def work(session: AsyncSession) -> BackboneDescription:
        return await get_backbone(session, fingerprint)

    try:
        return await run_transaction(services.sessions, work)
    except NotFoundError:
        return backbone_for([fingerprint], await serving_workers(services.workers)).backbone
