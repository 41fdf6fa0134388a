"""A trainer on a tiny backbone, with data sets, vectors and jobs for it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import JSON
from app.core.identifiers import sha256_hex
from app.core.vectors.card import VectorCard
from app.core.vectors.file import encode_vector_file
from app.library.catalogue.filters import list_vectors
from app.library.datasets import create_dataset
from app.library.records import DatasetRecord, JobRecord, VectorRecord
from app.library.storage import ObjectStore, dataset_key
from app.library.training.attempts import requeue_stalled
from app.library.training.jobs import enqueue_training, get_job
from app.library.training.queue import dequeue
from app.library.vectors import create_vector
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.training.trainer import Trainer
from tests.fakes.files.parquet import write_parquet
from tests.fakes.models.backbones import HIDDEN, LAYERS, tiny_examples
from tests.fakes.models.steered import random_vectors
from tests.fakes.waiting import SECONDS

Sessions = async_sessionmaker[AsyncSession]

CONFIG: dict[str, Any] = {
    "shots": 2,
    "num_queries": 8,
    "batch_size": 4,
    "epochs": 4,
    "held_out_fraction": 0.25,
    "cross_fit_below": 0,
    "trial_steps": 0,
    "checkpoint_every": 1,
    "seed": 3,
}


class Shop:
    """A trainer with its device, and what it combines."""

    def __init__(self, backbone: Backbone, sessions: Sessions, folder: Path) -> None:
        self.backbone = backbone
        self.sessions = sessions
        self.folder = folder
        self.objects = ObjectStore((folder / "objects").as_uri())
        self.engine = Engine(backbone, max_rows=4)
        self.device = DeviceThread(self.engine)
        self.trainer = Trainer(
            backbone,
            device=self.device,
            sessions=sessions,
            objects=self.objects,
            pass_tokens=512,
            heartbeat_seconds=0.02,
        )

    async def dataset(
        self, name: str, items: Sequence[Example], *, pixels_version: int | None = None
    ) -> DatasetRecord:
        path = write_parquet(self.folder / f"{name}.parquet", items, pixels_version=pixels_version)
        digest = sha256_hex(path.read_bytes())
        await self.objects.put_file(dataset_key(digest), path)
        async with self.sessions() as session, session.begin():
            return await create_dataset(
                session,
                name=name,
                sha256=digest,
                size_bytes=path.stat().st_size,
                num_items=len(items),
                num_images=len(items) // 2,
                storage_key=dataset_key(digest),
            )

    async def vector(self, seed: int, *, dataset: DatasetRecord | None = None) -> VectorRecord:
        description = self.backbone.description
        made = random_vectors(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(seed))
        blob = encode_vector_file(
            made.scaled(200.0).to_tensors(),
            metadata={"method": "m2iv", "backbone": description.fingerprint},
        )
        async with self.sessions() as session, session.begin():
            return await create_vector(
                session,
                name=f"part-{seed}",
                blob=blob,
                backbone=description,
                card=VectorCard(
                    status="ready",
                    shots=8,
                    seed=seed,
                    dataset_sha256=None if dataset is None else dataset.sha256,
                ),
            )

    async def run(
        self,
        dataset: DatasetRecord,
        config: Mapping[str, JSON],
        *,
        name: str,
        fingerprint: str | None = None,
        tags: Sequence[str] = (),
    ) -> JobRecord:
        """A job of these settings, brought to the trainer at once; as it ended."""
        async with self.sessions() as session, session.begin():
            job = await enqueue_training(
                session,
                name=name,
                dataset_id=dataset.id,
                config=config,
                backbone_fingerprint=fingerprint or self.backbone.description.fingerprint,
                tags=tags,
            )
            await dequeue(session, job.id)
        await self.trainer.run(job.id)
        return await self.job(job.id)

    async def enqueue(
        self,
        config: Mapping[str, Any],
        *,
        examples: Sequence[Example] | None = None,
        **changes: Any,  # noqa: ANN401
    ) -> uuid.UUID:
        """A job that learns from items, which nobody is told of."""
        dataset = await self.dataset("data", tiny_examples(24) if examples is None else examples)
        async with self.sessions() as session, session.begin():
            job = await enqueue_training(
                session,
                name="colours",
                dataset_id=dataset.id,
                config=config,
                description="about colours",
                tags=["test"],
                **changes,
            )
            await dequeue(session, job.id)
        return job.id

    async def until(self, job_id: uuid.UUID, condition: Callable[[JobRecord], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition(await self.job(job_id)):  # noqa: ASYNC110 - the database knows
                await asyncio.sleep(0.005)

    async def take_for_dead(self, job_id: uuid.UUID) -> None:
        """Queues the job again as if its worker had fallen silent."""
        async with asyncio.timeout(SECONDS):
            # A row that a heartbeat holds is passed over.
            while not await self._requeue(job_id):  # noqa: ASYNC110 - the database knows
                await asyncio.sleep(0.005)

    async def _requeue(self, job_id: uuid.UUID) -> bool:
        async with self.sessions() as session, session.begin():
            return await requeue_stalled(session, older_than_seconds=-1) == [job_id]

    async def num_vectors(self) -> int:
        async with self.sessions() as session:
            return len((await list_vectors(session)).items)

    async def job(self, job_id: uuid.UUID) -> JobRecord:
        async with self.sessions() as session:
            return await get_job(session, job_id)


@asynccontextmanager
async def open_shop(backbone: Backbone, sessions: Sessions, folder: Path) -> AsyncIterator[Shop]:
    shop = Shop(backbone, sessions, folder)
    shop.device.start()
    try:
        yield shop
    finally:
        shop.trainer.drain()
        await asyncio.to_thread(shop.device.stop)
        shop.engine.close()
