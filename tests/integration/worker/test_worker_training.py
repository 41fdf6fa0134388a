"""Training jobs in a real database, trained on a tiny random backbone beside the serving."""

import asyncio
import uuid
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from app.core.errors import NotFoundError
from app.core.pixels import PIXELS_VERSION
from app.core.vectors.file import decode_vector_file
from app.library.evaluations import list_evaluations
from app.library.records import JobRecord
from app.library.storage import checkpoint_key
from app.library.tables import IndexEpochRow, VectorNameRow
from app.library.task_keys import load_keys
from app.library.training.jobs import request_cancel
from app.library.vector_rows import get_blob
from app.library.vectors import get_vector
from app.method.backbone.examples import Example
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.method.evaluation.tasks.loading import load_examples
from app.method.keys.encoder import space_id
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import train
from app.rpc.generation import SamplingParams
from app.worker.engine.sequence import Sequence
from app.worker.training import results
from tests.fakes.library import events_of
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.models.generation import generate
from tests.fakes.shop import CONFIG, Shop, open_shop
from tests.fakes.waiting import SECONDS

pytestmark = pytest.mark.anyio

LONG = {**CONFIG, "epochs": 400, "max_steps": 900, "evaluate_every": 900}


def _is_learning(job: JobRecord) -> bool:
    return job.progress.get("phase") == "student"


async def test_a_job_ends_with_vector_measurement_keys_and_success_together(shop: Shop) -> None:
    job_id = await shop.enqueue(CONFIG)
    await shop.trainer.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.attempts, job.error_code) == ("succeeded", 1, None)
    assert job.progress["phase"] == "evaluate"
    async with shop.sessions() as session:
        vector = await get_vector(session, "colours")
        blob = await get_blob(session, vector.id)
        (measured,) = await list_evaluations(session, vector.id)
        (keys,) = await load_keys(session, space_id(shop.backbone))
        events = await events_of(session, job_id)
    assert vector.id == job.vector_id == keys.vector_id
    assert (vector.shots, vector.seed, vector.job_id) == (2, 3, job_id)
    assert (vector.description, vector.tags) == ("about colours", ("test",))
    assert vector.backbone == shop.backbone.description
    assert vector.hyper_parameters["epochs"] == 4
    assert "torch" in vector.library_versions
    assert vector.library_versions["pixels"] == str(PIXELS_VERSION)
    assert measured.items > 0
    assert measured.icl is not None
    assert measured.details["teacher_accuracy"] is not None
    assert job.report is not None
    assert job.vector is not None
    assert vector.status == job.vector["status"] == job.report["status"]
    assert job.report["conditions"]["m2iv"]["accuracy"] == measured.accuracy
    assert vector.max_dose is not None
    assert vector.dose is not None
    assert vector.max_dose >= vector.dose > 0
    assert [one.data.get("state") for one in events if one.kind == "state"][-1] == "succeeded"
    wanted = train(shop.backbone, _stored(shop.folder), TrainingConfig.from_dict(CONFIG))
    found, metadata = decode_vector_file(blob)
    assert metadata["backbone"] == shop.backbone.description.fingerprint
    np.testing.assert_array_equal(
        found.attention_vectors, wanted.vectors.to_tensors().attention_vectors
    )
    with pytest.raises(NotFoundError):
        await shop.objects.get_bytes(checkpoint_key(job_id))


async def test_others_store_vectors_while_a_training_looks_for_overlaps(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keys of the space are read for that, which takes long where there are many."""
    await shop.trainer.run(await shop.enqueue(CONFIG))

    async def look(*_arguments: object, **_options: object) -> list[str]:
        async with shop.sessions() as session:
            for table in (VectorNameRow, IndexEpochRow):
                await session.execute(select(table).with_for_update(nowait=True))
        return ["others"]

    monkeypatch.setattr(results, "find_overlaps", look)
    job_id = await shop.enqueue(CONFIG)
    await shop.trainer.run(job_id)
    job = await shop.job(job_id)
    assert (job.state, job.error_message) == ("succeeded", None)
    assert job.report is not None
    assert job.report["overlaps"] == ["others"]


def _stored(folder: Path) -> list[Example]:
    return load_examples(str(folder / "data.parquet"))


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
async def test_serving_goes_on_beside_a_training_and_is_not_touched_by_it(
    shop: Shop, *, gradient_checkpointing: bool
) -> None:
    config = {**LONG, "gradient_checkpointing": gradient_checkpointing}
    job_id = await shop.enqueue(config)
    training = asyncio.create_task(shop.trainer.run(job_id))
    await shop.until(job_id, _is_learning)
    prompt = build_prompt(shop.backbone, "what color is it?", tiny_examples(2)[0].pictures)
    inputs = encode_prompts(shop.backbone, [prompt]).inputs

    def make() -> Sequence:
        return Sequence(
            id="beside", inputs=inputs, sampling=SamplingParams(max_tokens=8), keeps_first=True
        )

    beside = await shop.device.generate("beside", make)
    assert not training.done()
    shop.trainer.drain()
    await training
    alone = (await shop.device.call(lambda: generate(shop.backbone, [prompt], max_new_tokens=8)))[0]
    after = await shop.device.generate("beside", make)
    assert tuple(beside.token_ids) == alone.token_ids
    assert beside.first_log_probabilities is not None
    assert after.first_log_probabilities is not None
    np.testing.assert_array_equal(
        beside.first_log_probabilities.numpy(), after.first_log_probabilities.numpy()
    )


async def test_a_job_of_a_drained_worker_resumes_elsewhere_and_ends_with_the_very_same_vector(
    shop: Shop,
) -> None:
    config = {**CONFIG, "epochs": 20, "evaluate_every": 20}
    job_id = await shop.enqueue(config)
    training = asyncio.create_task(shop.trainer.run(job_id))
    await shop.until(job_id, _is_learning)
    shop.trainer.drain()
    await training
    interrupted = await shop.job(job_id)
    assert (interrupted.state, interrupted.attempts) == ("queued", 0)
    assert await shop.num_vectors() == 0
    async with open_shop(shop.backbone, shop.sessions, shop.folder) as other:
        await other.trainer.run(job_id)
        job = await other.job(job_id)
    assert (job.state, job.attempts) == ("succeeded", 1)
    async with shop.sessions() as session:
        blob = await get_blob(session, job.vector_id or uuid.UUID(int=0))
        events = await events_of(session, job_id)
    steps = [one.data["step"] for one in events if one.data.get("phase") == "student"]
    assert steps == sorted(steps)
    wanted = train(shop.backbone, _stored(shop.folder), TrainingConfig.from_dict(config))
    tensors = wanted.vectors.to_tensors()
    found, _ = decode_vector_file(blob)
    np.testing.assert_array_equal(found.attention_vectors, tensors.attention_vectors)
    np.testing.assert_array_equal(found.mlp_weights, tensors.mlp_weights)


async def test_a_cancelled_job_stops_and_leaves_nothing(shop: Shop) -> None:
    job_id = await shop.enqueue(LONG)
    training = asyncio.create_task(shop.trainer.run(job_id))
    await shop.until(job_id, _is_learning)
    async with shop.sessions() as session, session.begin():
        await request_cancel(session, job_id)
    await asyncio.wait_for(training, SECONDS)
    assert (await shop.job(job_id)).state == "cancelled"
    assert await shop.num_vectors() == 0
    with pytest.raises(NotFoundError):
        await shop.objects.get_bytes(checkpoint_key(job_id))


async def test_a_zombies_result_is_refused(shop: Shop) -> None:
    job_id = await shop.enqueue({**CONFIG, "epochs": 15, "evaluate_every": 15})
    shop.trainer._heartbeat_seconds = 1000.0
    training = asyncio.create_task(shop.trainer.run(job_id))
    await shop.until(job_id, lambda job: job.state == "running")
    # Taken for dead while it works on; it hears of it only when it wants to store its result.
    await shop.take_for_dead(job_id)
    await asyncio.wait_for(training, SECONDS)
    assert (await shop.job(job_id)).state == "queued"
    assert await shop.num_vectors() == 0


async def test_a_worker_that_lost_its_job_stops_early(shop: Shop) -> None:
    job_id = await shop.enqueue(LONG)
    training = asyncio.create_task(shop.trainer.run(job_id))
    await shop.until(job_id, _is_learning)
    await shop.take_for_dead(job_id)
    await asyncio.wait_for(training, SECONDS)
    assert (await shop.job(job_id)).state == "queued"


async def test_a_second_delivery_of_a_job_is_left_alone(shop: Shop) -> None:
    job_id = await shop.enqueue(CONFIG)
    await asyncio.gather(shop.trainer.run(job_id), shop.trainer.run(job_id))
    job = await shop.job(job_id)
    assert (job.state, job.attempts) == ("succeeded", 1)
    assert await shop.num_vectors() == 1
