"""A serving worker without a database whose steps can be held back and counted."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.core.settings import Settings
from app.library.storage import ObjectStore
from app.method.backbone.loading import Backbone
from app.method.keys.encoder import space_id
from app.rpc.messages import HealthResponse
from app.worker.assembly import serving_parts
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from app.worker.serving.metrics import WorkerMetrics
from app.worker.serving.service import Serving
from tests.fakes.servers.serving import HIGHEST_DOSE, Files
from tests.fakes.waiting import SECONDS, until


class StepGate:
    """Stands before an engine's steps, and lets one through for every permit while it is shut.

    Attributes:
        is_shut: Whether a step needs a permit.
        num_asked: Steps that were asked for; one more than were taken while one waits.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._step = engine.step
        self._permits = threading.Semaphore(0)
        self.is_shut = False
        self.num_asked = 0
        engine.step = self._pass  # type: ignore[method-assign]  # all who step come by here

    @property
    def num_steps(self) -> int:
        """Steps that were taken."""
        return self._engine.num_steps

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a row."""
        return self._engine.num_waiting

    def allow(self, steps: int) -> None:
        for _ in range(steps):
            self._permits.release()

    def open(self) -> None:
        """Let everything through from now on."""
        self.is_shut = False
        self.allow(1)

    async def take(self, steps: int) -> None:
        """Take so many steps, and return when one more waits."""
        wanted = self.num_steps + steps + 1
        self.allow(steps)
        await until(lambda: self.num_asked == wanted)

    def _pass(self) -> list[Sequence]:
        self.num_asked += 1
        if self.is_shut:
            assert self._permits.acquire(timeout=SECONDS)
        return self._step()


@dataclass(frozen=True, kw_only=True)
class GatedWorker:
    """A worker as it is composed, with a gate that is open at first."""

    backbone: Backbone
    files: Files
    gate: StepGate
    device: DeviceThread
    serving: Serving

    @property
    def metrics(self) -> WorkerMetrics:
        return self.serving.metrics

    def health(self) -> HealthResponse:
        return HealthResponse(
            status="ready",
            backbone=self.backbone.description,
            space=space_id(self.backbone),
            running=self.device.num_running,
            waiting=0,
            role="both",
        )


@asynccontextmanager
async def gated_worker(backbone: Backbone, *, max_rows: int = 4) -> AsyncIterator[GatedWorker]:
    """A worker that runs for the block."""
    settings = Settings(
        max_rows=max_rows, max_new_tokens_limit=900, vector_cache_slots=4, max_dose=HIGHEST_DOSE
    )
    files = Files(backbone)
    store = ObjectStore("memory:///")
    async with serving_parts(lambda: backbone, settings, fetch=files.fetch, objects=store) as parts:
        gate = StepGate(parts.engine)
        try:
            yield GatedWorker(
                backbone=backbone,
                files=files,
                gate=gate,
                device=parts.device,
                serving=parts.serving,
            )
        finally:
            gate.open()
