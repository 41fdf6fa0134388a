"""Rows that tests of the library need around them."""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.backbones import BackboneDescription
from app.core.identifiers import sha256_hex
from app.core.states import TrainedStatus
from app.core.vectors.card import VectorCard
from app.library.datasets import create_dataset
from app.library.records import DatasetRecord, JobEvent, JobRecord, VectorRecord
from app.library.training.jobs import enqueue_training, new_events
from app.library.vectors import create_vector
from tests.fakes.vectors import make_description, make_vector_file
from tests.fakes.waiting import SECONDS


async def store(
    session: AsyncSession,
    name: str = "task",
    *,
    seed: int = 0,
    backbone: BackboneDescription | None = None,
    blob: bytes | None = None,
    status: TrainedStatus = "ready",
    description: str = "",
    tags: Sequence[str] = (),
) -> VectorRecord:
    backbone = backbone or make_description()
    return await create_vector(
        session,
        name=name,
        blob=blob or make_vector_file(seed, backbone=backbone),
        backbone=backbone,
        card=VectorCard(
            status=status,
            shots=16,
            hyper_parameters={"epochs": 3},
            seed=seed,
            library_versions={"vlibrary": "0.1.0"},
        ),
        description=description,
        tags=tags,
    )


async def store_dataset(
    session: AsyncSession, name: str = "easy-vqa", *, splits: Mapping[str, int] | None = None
) -> DatasetRecord:
    return await create_dataset(
        session,
        name=name,
        sha256=sha256_hex(name.encode()),
        size_bytes=10,
        num_items=4,
        num_images=2,
        storage_key=f"datasets/{name}.parquet",
        report={"splits": dict(splits or {})},
    )


async def store_job(session: AsyncSession, name: str = "task") -> JobRecord:
    dataset = await store_dataset(session)
    return await enqueue_training(session, name=name, dataset_id=dataset.id, config={"epochs": 1})


async def events_of(session: AsyncSession, job_id: uuid.UUID, *, after: int = 0) -> list[JobEvent]:
    return (await new_events(session, {job_id: after}))[job_id][0]


def some_id() -> uuid.UUID:
    return uuid.UUID("01a20630-2422-7ee6-9fda-12192fef72d3")


async def silence(session: AsyncSession, job: JobRecord, *, seconds: float) -> None:
    """Makes a job's last sign of life so much older."""
    query = "UPDATE training_jobs SET heartbeat = heartbeat - make_interval(secs => :seconds)"
    await session.execute(text(query + " WHERE id = :id"), {"seconds": seconds, "id": job.id})


async def count_waiting(session: AsyncSession) -> int:
    """Deliveries that nobody has taken."""
    query = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'"
    return int(await session.scalar(text(query)) or 0)


async def until_somebody_waits(session: AsyncSession) -> None:
    """Returns as soon as another session waits for a lock."""
    deadline = time.monotonic() + SECONDS
    while not await session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
        assert time.monotonic() < deadline, "nobody waited"
        await asyncio.sleep(0.01)
