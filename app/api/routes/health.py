"""Routes about the service's own state."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from fastapi import APIRouter, Response
from sqlalchemy import text

from app.api.dependencies import Services, ServicesOf
from app.api.http.problems import problems
from app.api.schemas.bodies import PageBody
from app.api.schemas.health import CheckBody, ReadyzBody
from app.api.schemas.vectors import BackboneBody
from app.api.steer.openai.models import served_backbones
from app.core.errors import WorkerUnavailableError
from app.core.telemetry.logs import get_logger
from app.library.task_keys import current_epochs

CHECK_TIMEOUT_SECONDS: Final = 5.0
RETRY_AFTER_SECONDS: Final = 2
MAX_CHANGES_BEHIND: Final = 1000

log = get_logger(__name__)

router = APIRouter(tags=["health"])
backbones = APIRouter(tags=["health"])


@router.get("/livez", responses=problems())
async def livez() -> dict[str, Literal["alive"]]:
    """Answers as long as the process does."""
    return {"status": "alive"}


@router.get("/readyz", responses=problems() | {503: {"model": ReadyzBody}})
async def readyz(response: Response, services: ServicesOf) -> ReadyzBody:
    """Answers whether the database, a worker and the index do their work; 503 when one does not."""
    probes = {"database": _database, "worker": _worker, "index": _index}
    found = await asyncio.gather(*(_check(probe, services) for probe in probes.values()))
    checks = dict(zip(probes, found, strict=True))
    is_ready = all(check.ok for check in checks.values())
    if not is_ready:
        response.status_code = 503
        response.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return ReadyzBody(status="ready" if is_ready else "unready", checks=checks)


@backbones.get("/backbones", responses=problems())
async def list_backbones(services: ServicesOf) -> PageBody[BackboneBody]:
    """Lists the backbones that workers serve now."""
    served = await served_backbones(services)
    return PageBody[BackboneBody](items=tuple(map(BackboneBody.model_validate, served)))


async def _check(
    probe: Callable[[Services], Awaitable[CheckBody]], services: Services
) -> CheckBody:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            return await probe(services)
    except TimeoutError:
        return CheckBody(ok=False, detail="no answer in time")
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the answer is "not ready"
        log.warning("check failed", check=probe.__name__, reason=type(error).__name__)
        return CheckBody(ok=False, detail="does not answer")


async def _database(services: Services) -> CheckBody:
    async with services.sessions() as session:
        await session.execute(text("SELECT 1"))
    return CheckBody(ok=True)


async def _worker(services: Services) -> CheckBody:
    try:
        serving = await services.workers.pool.ready()
    except WorkerUnavailableError:
        return CheckBody(ok=False, detail="no worker is ready to serve")
    counts = Counter(health.backbone.name for health in serving)
    served = (f"{count} serving {name}" for name, count in sorted(counts.items()))
    return CheckBody(ok=True, detail=", ".join(served))


async def _index(services: Services) -> CheckBody:
    async with services.sessions() as session:
        epochs = await current_epochs(session)
    behind = sum(epoch - services.retriever.epoch(space) for space, epoch in epochs.items())
    return CheckBody(ok=behind <= MAX_CHANGES_BEHIND, detail=f"{behind} changes behind")
