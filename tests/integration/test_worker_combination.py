"""Jobs that combine stored vectors, in a real database, on a tiny random backbone."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.identifiers import VectorReference, sha256_hex
from app.core.logs import configure_logs
from app.core.vector_file import decode_vector_file, encode_vector_file
from app.library.blobs import get_blob
from app.library.datasets import create_dataset
from app.library.evaluations import list_evaluations
from app.library.records import DatasetRecord, JobRecord, VectorRecord
from app.library.storage import ObjectStore, dataset_key
from app.library.training.jobs import enqueue_training, get_job
from app.library.training.queue import dequeue
from app.library.vectors import create_vector, get_vector
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.training.runner import Trainer
from tests.fakes.backbones import HIDDEN, LAYERS, tiny_backbone, tiny_examples
from tests.fakes.parquet import write_parquet

pytestmark = pytest.mark.anyio

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture(scope="module", autouse=True)
def quiet_logs() -> None:
    """Failures that tests provoke would otherwise be rendered at length."""
    configure_logs("critical")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


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
            pulse_seconds=0.02,
        )

    async def dataset(self, name: str, items: Sequence[Example]) -> DatasetRecord:
        path = write_parquet(self.folder / f"{name}.parquet", items)
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
        made = InContextVectors.initial(
            LAYERS, HIDDEN, generator=torch.Generator().manual_seed(seed)
        )
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
                shots=8,
                hyper_parameters={},
                seed=seed,
                library_versions={},
                dataset_sha256=None if dataset is None else dataset.sha256,
            )

    async def combine(self, dataset: DatasetRecord, parts: list[VectorRecord]) -> JobRecord:
        order: dict[str, Any] = {
            "rule": "weighted",
            "seed": 3,
            "parts": [str(part.id) for part in parts],
        }
        async with self.sessions() as session, session.begin():
            job = await enqueue_training(
                session,
                name="whole",
                dataset_id=dataset.id,
                config={"combine": order},
                backbone_fingerprint=self.backbone.description.fingerprint,
                tags=["test"],
            )
            # These tests bring the job to the trainer themselves.
            await dequeue(session, job.id)
        await self.trainer.run(job.id)
        return await self.job(job.id)

    async def job(self, job_id: uuid.UUID) -> JobRecord:
        async with self.sessions() as session:
            return await get_job(session, job_id)


@pytest.fixture
async def shop(backbone: Backbone, sessions: Sessions, tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(backbone, sessions, tmp_path)
    made.device.start()
    yield made
    await asyncio.to_thread(made.device.stop)
    made.engine.close()


async def test_a_combination_is_stored_with_its_parents_and_its_measurement(shop: Shop) -> None:
    learnt = await shop.dataset("learnt", tiny_examples(8))
    given = await shop.dataset("given", tiny_examples(32, seed=1))
    parts = [await shop.vector(0, dataset=learnt), await shop.vector(1)]
    job = await shop.combine(given, parts)
    assert (job.state, job.error_message) == ("succeeded", None)
    report = job.report
    assert report is not None
    # The same squares were drawn for both.
    shared = len(
        {item.image.digest for item in tiny_examples(8) if item.image}
        & {item.image.digest for item in tiny_examples(32, seed=1) if item.image}
    )
    assert report["left_out"] == 2 * shared > 0
    assert report["unchecked"] == ["part-1@1"]
    assert report["rule"] == "weighted"
    assert report["best_part"] in {"part-0@1", "part-1@1"}
    assert [part["vector"] for part in report["parts"]] == ["part-0@1", "part-1@1"]
    assert report["best_part"] in report["reason"]
    async with shop.sessions() as session:
        made = await get_vector(session, VectorReference.parse("whole"))
        (measured,) = await list_evaluations(session, made.id)
        blobs = [await get_blob(session, one.id) for one in (*parts, made)]
    assert made.id == job.vector_id
    assert made.parents == (parts[0].id, parts[1].id)
    assert (made.job_id, made.dataset_sha256, made.method) == (job.id, given.sha256, "m2iv-sum")
    assert (made.shots, made.tags) == (16, ("test",))
    assert (measured.items, measured.accuracy) == (
        report["items"],
        report["conditions"]["m2iv"]["accuracy"],
    )
    weights = [part["weight"] for part in made.hyper_parameters["parts"]]
    assert weights == [part["weight"] for part in report["parts"]]
    first, second, whole = (decode_vector_file(blob)[0].shift() for blob in blobs)
    wanted = weights[0] * first + weights[1] * second
    assert abs(whole - wanted).max() < 1e-3


async def test_items_that_a_part_was_trained_on_neither_choose_nor_measure(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(24))
    parts = [await shop.vector(0, dataset=given), await shop.vector(1)]
    job = await shop.combine(given, parts)
    assert (job.state, job.error_code) == ("failed", "invalid-dataset")
    assert "that no part was trained on, with 8 pictures, found 0" in str(job.error_message)


async def test_what_parts_of_parts_were_trained_on_is_left_out_too(shop: Shop) -> None:
    given = await shop.dataset("given", tiny_examples(24))
    first = await shop.vector(0, dataset=given)
    description = shop.backbone.description
    async with shop.sessions() as session, session.begin():
        summed = await create_vector(
            session,
            name="sum",
            blob=await get_blob(session, first.id),
            backbone=description,
            shots=8,
            hyper_parameters={},
            seed=0,
            library_versions={},
            parents=[first.id],
        )
    job = await shop.combine(given, [summed, await shop.vector(1)])
    assert (job.state, job.error_code) == ("failed", "invalid-dataset")
