"""A serving worker without a database, on a tiny backbone, whose steps can be held back."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.errors import NotFoundError
from app.core.identifiers import sha256_hex
from app.core.settings import Settings
from app.library.storage import ObjectStore
from app.method.backbone import Backbone
from app.method.dose import residual_norms
from app.method.embedding import space_id
from app.method.features import FeatureCache
from app.worker.bank import VectorBank
from app.worker.demonstrations import DatasetPools
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from app.worker.images import ImageLimits
from app.worker.messages import HealthResponse
from app.worker.metrics import Metrics
from app.worker.mirrors import mirror_worker
from app.worker.reading import DoseLimit, Reader
from app.worker.serving import Limits, Serving
from tests.fakes.serving import HIGHEST_DOSE
from tests.fakes.vectors import make_vector_file
from tests.fakes.waiting import SECONDS, until


class GatedEngine(Engine):
    """An engine that can be made to wait for a permit before every step.

    Attributes:
        is_gated: Whether it waits.
        num_asked: Steps that were asked for; one more than were taken while one waits.
    """

    def __init__(self, backbone: Backbone, *, max_rows: int) -> None:
        super().__init__(backbone, max_rows=max_rows)
        self._permits = threading.Semaphore(0)
        self.is_gated = False
        self.num_asked = 0

    def allow(self, steps: int) -> None:
        for _ in range(steps):
            self._permits.release()

    async def take(self, steps: int) -> None:
        """Take so many steps, and return when one more waits."""
        wanted = self.num_steps + steps + 1
        self.allow(steps)
        await until(lambda: self.num_asked == wanted)

    def step(self) -> list[Sequence]:
        self.num_asked += 1
        if self.is_gated:
            assert self._permits.acquire(timeout=SECONDS)
        return super().step()


class ServingWorker:
    """The parts of a worker, wired as its composition root does."""

    def __init__(self, backbone: Backbone, *, max_rows: int = 4, max_requests: int = 16) -> None:
        self._backbone = backbone
        self.files = {
            sha256_hex(data): data
            for data in (make_vector_file(seed, backbone=backbone.description) for seed in (1, 2))
        }
        self.engine = GatedEngine(backbone, max_rows=max_rows)
        self.device = DeviceThread(self.engine)
        self.metrics = Metrics()
        features = FeatureCache(backbone)
        bank = VectorBank(
            backbone, device=self.device, fetch=self.fetch, num_slots=4, metrics=self.metrics
        )
        pools = DatasetPools(
            backbone, device=self.device, objects=ObjectStore("memory:///"), features=features
        )
        self.reader = Reader(
            backbone,
            device=self.device,
            pools=pools,
            features=features,
            limits=ImageLimits.of(Settings()),
        )
        dose = DoseLimit(norms=residual_norms(backbone), highest=HIGHEST_DOSE)
        self.serving = Serving(
            backbone,
            device=self.device,
            bank=bank,
            reader=self.reader,
            features=features,
            limits=Limits(max_requests=max_requests, max_new_tokens=900, dose=dose),
            metrics=self.metrics,
        )
        mirror_worker(self.metrics.registry, device=self.device, bank=bank, serving=self.serving)

    async def fetch(self, digest: str) -> bytes:
        if digest not in self.files:
            raise NotFoundError("no such file")
        return self.files[digest]

    def health(self) -> HealthResponse:
        return HealthResponse(
            status="ready",
            backbone=self._backbone.description,
            space=space_id(self._backbone),
            running=self.device.num_running,
            waiting=0,
            role="both",
        )


@asynccontextmanager
async def serving_worker(
    backbone: Backbone, *, max_rows: int = 4, max_requests: int = 16
) -> AsyncIterator[ServingWorker]:
    """A worker that runs for the block."""
    worker = ServingWorker(backbone, max_rows=max_rows, max_requests=max_requests)
    worker.device.start()
    try:
        yield worker
    finally:
        worker.engine.is_gated = False
        worker.engine.allow(1)
        worker.reader.close()
        await asyncio.to_thread(worker.device.stop)
        worker.engine.close()
