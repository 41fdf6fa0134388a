"""Training jobs in a real database, trained on a tiny random backbone beside the serving."""

import asyncio
import errno
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import NotFoundError, StorageFullError
from app.core.identifiers import VectorReference, sha256_hex
from app.core.pixels import PIXELS_VERSION
from app.core.telemetry.logs import configure_logs
from app.core.vector_file import decode_vector_file
from app.library.catalogue.filters import list_vectors
from app.library.datasets import create_dataset
from app.library.evaluations import list_evaluations
from app.library.records import JobRecord
from app.library.storage import ObjectStore, checkpoint_key, dataset_key
from app.library.task_keys.keys import load_keys
from app.library.training.attempts import claim_job, requeue_stalled
from app.library.training.jobs import enqueue_training, get_job, list_jobs, request_cancel
from app.library.training.queue import dequeue, is_waiting
from app.library.vector_rows import get_blob
from app.library.vectors import get_vector
from app.method.backbone.examples import Example
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import build_prompt, encode_prompts
from app.method.evaluation.tasks.loading import load_examples
from app.method.keys.encoder import space_id
from app.method.steering.generation import generate
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult, train
from app.method.training.progress import Steps, TrainingProgress
from app.rpc.generation import SamplingParams
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.sequence import Sequence
from app.worker.training import runner as training_module
from app.worker.training.attempt import Attempt, tell
from app.worker.training.runner import Trainer
from tests.fakes.files.parquet import write_parquet
from tests.fakes.library import events_of
from tests.fakes.models.backbones import tiny_backbone, tiny_examples
from tests.fakes.waiting import SECONDS

pytestmark = pytest.mark.anyio

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
LONG = {**CONFIG, "epochs": 400, "max_steps": 900, "evaluate_every": 900}


@pytest.fixture(scope="module", autouse=True)
def quiet_logs() -> None:
    """Failures that tests provoke would otherwise be rendered at length."""
    configure_logs("critical")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore((tmp_path / "objects").as_uri())


def _is_learning(job: JobRecord) -> bool:
    return job.progress.get("phase") == "student"


class Bench:
    """A trainer with its device, and a dataset to train on."""

    def __init__(self, backbone: Backbone, sessions: Sessions, objects: ObjectStore) -> None:
        self.backbone = backbone
        self.sessions = sessions
        self.objects = objects
        self.engine = Engine(backbone, max_rows=4)
        self.device = DeviceThread(self.engine)
        self.trainer = Trainer(
            backbone,
            device=self.device,
            sessions=sessions,
            objects=objects,
            pass_tokens=512,
            pulse_seconds=0.02,
        )

    async def enqueue(self, folder: Path, config: dict[str, Any], **changes: Any) -> uuid.UUID:  # noqa: ANN401
        path = write_parquet(folder / "data.parquet", changes.pop("examples", tiny_examples(24)))
        digest = sha256_hex(path.read_bytes())
        await self.objects.put_file(dataset_key(digest), path)
        async with self.sessions() as session, session.begin():
            dataset = await create_dataset(
                session,
                name="colours",
                sha256=digest,
                size_bytes=path.stat().st_size,
                num_items=24,
                num_images=12,
                storage_key=dataset_key(digest),
            )
            job = await enqueue_training(
                session,
                name="colours",
                dataset_id=dataset.id,
                config=config,
                description="about colours",
                tags=["test"],
                **changes,
            )
            # These tests bring the job to the trainer themselves.
            await dequeue(session, job.id)
        return job.id

    async def job(self, job_id: uuid.UUID) -> JobRecord:
        async with self.sessions() as session:
            return await get_job(session, job_id)

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


@asynccontextmanager
async def _bench(
    backbone: Backbone, sessions: Sessions, objects: ObjectStore
) -> AsyncIterator[Bench]:
    bench = Bench(backbone, sessions, objects)
    bench.device.start()
    try:
        yield bench
    finally:
        bench.trainer.drain()
        await asyncio.to_thread(bench.device.stop)
        bench.engine.close()


@pytest.fixture
async def bench(
    backbone: Backbone, sessions: Sessions, objects: ObjectStore
) -> AsyncIterator[Bench]:
    async with _bench(backbone, sessions, objects) as made:
        yield made


async def test_a_job_ends_with_vector_measurement_keys_and_success_together(
    bench: Bench, tmp_path: Path
) -> None:
    job_id = await bench.enqueue(tmp_path, CONFIG)
    await bench.trainer.run(job_id)
    job = await bench.job(job_id)
    assert (job.state, job.attempts, job.error_code) == ("succeeded", 1, None)
    assert job.progress["phase"] == "evaluate"
    async with bench.sessions() as session:
        vector = await get_vector(session, VectorReference.parse("colours"))
        blob = await get_blob(session, vector.id)
        (measured,) = await list_evaluations(session, vector.id)
        (keys,) = await load_keys(session, space_id(bench.backbone))
        events = await events_of(session, job_id)
    assert vector.id == job.vector_id == keys.vector_id
    assert (vector.shots, vector.seed, vector.job_id) == (2, 3, job_id)
    assert (vector.description, vector.tags) == ("about colours", ("test",))
    assert vector.backbone == bench.backbone.description
    assert vector.hyper_parameters["epochs"] == 4
    assert "torch" in vector.library_versions
    assert vector.library_versions["pixels"] == str(PIXELS_VERSION)
    assert measured.items > 0
    assert measured.icl is not None
    assert measured.details["teacher_accuracy"] is not None
    assert job.report is not None
    assert vector.status == job.vector_status == job.report["status"]
    assert job.report["conditions"]["m2iv"]["accuracy"] == measured.accuracy
    assert vector.max_dose is not None
    assert vector.dose is not None
    assert vector.max_dose >= vector.dose > 0
    assert [one.data.get("state") for one in events if one.kind == "state"][-1] == "succeeded"
    wanted = train(bench.backbone, _stored(tmp_path), TrainingConfig.from_dict(CONFIG))
    found, metadata = decode_vector_file(blob)
    assert metadata["backbone"] == bench.backbone.description.fingerprint
    np.testing.assert_array_equal(
        found.attention_vectors, wanted.vectors.to_tensors().attention_vectors
    )
    with pytest.raises(NotFoundError):
        await bench.objects.get_bytes(checkpoint_key(job_id))


def _stored(folder: Path) -> list[Example]:
    return load_examples(str(folder / "data.parquet"))


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
async def test_serving_goes_on_beside_a_training_and_is_not_touched_by_it(
    bench: Bench, tmp_path: Path, *, gradient_checkpointing: bool
) -> None:
    config = {**LONG, "gradient_checkpointing": gradient_checkpointing}
    job_id = await bench.enqueue(tmp_path, config)
    training = asyncio.create_task(bench.trainer.run(job_id))
    await bench.until(job_id, _is_learning)
    prompt = build_prompt(bench.backbone, "what color is it?", tiny_examples(2)[0].pictures)
    inputs = encode_prompts(bench.backbone, [prompt]).inputs

    def make() -> Sequence:
        return Sequence(
            id="beside", inputs=inputs, sampling=SamplingParams(max_tokens=8), keeps_first=True
        )

    beside = await bench.device.generate("beside", make)
    assert not training.done()
    bench.trainer.drain()
    await training
    alone = (await bench.device.call(lambda: generate(bench.backbone, [prompt], max_new_tokens=8)))[
        0
    ]
    after = await bench.device.generate("beside", make)
    assert tuple(beside.token_ids) == alone.token_ids
    assert beside.first_log_probabilities is not None
    assert after.first_log_probabilities is not None
    np.testing.assert_array_equal(
        beside.first_log_probabilities.numpy(), after.first_log_probabilities.numpy()
    )


async def test_a_job_of_a_drained_worker_resumes_elsewhere_and_ends_with_the_very_same_vector(
    bench: Bench, tmp_path: Path
) -> None:
    config = {**CONFIG, "epochs": 20, "evaluate_every": 20}
    job_id = await bench.enqueue(tmp_path, config)
    training = asyncio.create_task(bench.trainer.run(job_id))
    await bench.until(job_id, _is_learning)
    bench.trainer.drain()
    await training
    interrupted = await bench.job(job_id)
    assert (interrupted.state, interrupted.attempts) == ("queued", 0)
    assert await bench.num_vectors() == 0
    async with _bench(bench.backbone, bench.sessions, bench.objects) as other:
        await other.trainer.run(job_id)
        job = await other.job(job_id)
    assert (job.state, job.attempts) == ("succeeded", 1)
    async with bench.sessions() as session:
        blob = await get_blob(session, job.vector_id or uuid.UUID(int=0))
        events = await events_of(session, job_id)
    steps = [one.data["step"] for one in events if one.data.get("phase") == "student"]
    assert steps == sorted(steps)
    wanted = train(bench.backbone, _stored(tmp_path), TrainingConfig.from_dict(config))
    tensors = wanted.vectors.to_tensors()
    found, _ = decode_vector_file(blob)
    np.testing.assert_array_equal(found.attention_vectors, tensors.attention_vectors)
    np.testing.assert_array_equal(found.mlp_weights, tensors.mlp_weights)


async def test_a_cancelled_job_stops_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    job_id = await bench.enqueue(tmp_path, LONG)
    training = asyncio.create_task(bench.trainer.run(job_id))
    await bench.until(job_id, _is_learning)
    async with bench.sessions() as session, session.begin():
        await request_cancel(session, job_id)
    await asyncio.wait_for(training, SECONDS)
    assert (await bench.job(job_id)).state == "cancelled"
    assert await bench.num_vectors() == 0
    with pytest.raises(NotFoundError):
        await bench.objects.get_bytes(checkpoint_key(job_id))


async def test_a_zombies_result_is_refused(bench: Bench, tmp_path: Path) -> None:
    job_id = await bench.enqueue(tmp_path, {**CONFIG, "epochs": 15, "evaluate_every": 15})
    bench.trainer._pulse_seconds = 1000.0
    training = asyncio.create_task(bench.trainer.run(job_id))
    await bench.until(job_id, lambda job: job.state == "running")
    # Taken for dead while it works on; it hears of it only when it wants to store its result.
    await bench.take_for_dead(job_id)
    await asyncio.wait_for(training, SECONDS)
    assert (await bench.job(job_id)).state == "queued"
    assert await bench.num_vectors() == 0


async def test_a_worker_that_lost_its_job_stops_early(bench: Bench, tmp_path: Path) -> None:
    job_id = await bench.enqueue(tmp_path, LONG)
    training = asyncio.create_task(bench.trainer.run(job_id))
    await bench.until(job_id, _is_learning)
    await bench.take_for_dead(job_id)
    await asyncio.wait_for(training, SECONDS)
    assert (await bench.job(job_id)).state == "queued"


async def test_a_second_delivery_of_a_job_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    job_id = await bench.enqueue(tmp_path, CONFIG)
    await asyncio.gather(bench.trainer.run(job_id), bench.trainer.run(job_id))
    job = await bench.job(job_id)
    assert (job.state, job.attempts) == ("succeeded", 1)
    assert await bench.num_vectors() == 1


@pytest.mark.parametrize(
    ("config", "changes", "code"),
    [
        ({"no_such_setting": 1}, {}, "invalid-input"),
        ({"shots": 10**6}, {}, "invalid-input"),
        (CONFIG, {"backbone_fingerprint": "0" * 64}, "incompatible-backbone"),
        (CONFIG, {"examples": tiny_examples(2)}, "invalid-dataset"),
    ],
)
async def test_a_job_that_cannot_be_done_fails_with_its_reason(  # noqa: PLR0917 - parameters
    bench: Bench, tmp_path: Path, config: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    job_id = await bench.enqueue(tmp_path, config, **changes)
    await bench.trainer.run(job_id)
    job = await bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", code)
    assert job.error_message


async def test_a_foreign_failure_is_told_without_its_message(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> Steps[TrainingResult]:
        yield None
        raise RuntimeError("question: a secret?")

    monkeypatch.setattr("app.worker.training.runner.training_steps", fail)
    job_id = await bench.enqueue(tmp_path, CONFIG)
    await bench.trainer.run(job_id)
    job = await bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "error")
    assert "secret" not in (job.error_message or "")


async def test_a_database_that_is_away_for_a_while_does_not_end_a_training(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = threading.Event()

    async def unreliable(attempt: Any, progress: Any, session: AsyncSession) -> bool:  # noqa: ANN401
        if not failures.is_set() and progress is not None:
            failures.set()
            raise OperationalError("select", {}, Exception("the server went away"))
        return await tell(attempt, progress, session)

    monkeypatch.setattr(training_module, "tell", unreliable)
    job_id = await bench.enqueue(tmp_path, {**CONFIG, "epochs": 6})
    await bench.trainer.run(job_id)
    assert failures.is_set()
    assert (await bench.job(job_id)).state == "succeeded"


async def test_progress_of_a_lost_transaction_is_told_by_the_next(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    async def unreliable(attempt: Any, progress: Any, session: AsyncSession) -> bool:  # noqa: ANN401
        told.append(progress)
        if len(told) == 1:
            raise OperationalError("select", {}, Exception("the server went away"))
        return await tell(attempt, progress, session)

    monkeypatch.setattr(training_module, "tell", unreliable)
    attempt = Attempt(job=await _claimed(bench, tmp_path), token=1)
    attempt.progress = TrainingProgress(phase="student", step=3, num_steps=9)
    beating = asyncio.create_task(bench.trainer._beat(attempt))
    async with asyncio.timeout(SECONDS):
        while len(told) < 2 or attempt.progress is not None:  # noqa: ASYNC110 - the database knows
            await asyncio.sleep(0.005)
    beating.cancel()
    async with bench.sessions() as session:
        events = await events_of(session, attempt.job.id)
    assert [one.data["step"] for one in events if "step" in one.data] == [3]


async def _claimed(bench: Bench, folder: Path) -> JobRecord:
    job_id = await bench.enqueue(folder, CONFIG)
    async with bench.sessions() as session, session.begin():
        job, token = await claim_job(session, job_id)
    assert token == 1
    return job


async def test_a_draining_worker_takes_no_job(bench: Bench, tmp_path: Path) -> None:
    job_id = await bench.enqueue(tmp_path, CONFIG)
    bench.trainer.drain()
    await bench.trainer.run(job_id)
    assert (await bench.job(job_id)).state == "queued"
    async with bench.sessions() as session:
        assert len((await list_jobs(session)).items) == 1
        # Whoever is there to do it finds it at once.
        assert await is_waiting(session, job_id)


async def test_a_checkpoint_that_cannot_be_stored_fails_the_job_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_key: str, _data: bytes) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(bench.objects, "put_bytes", refused)
    job_id = await bench.enqueue(tmp_path, {**CONFIG, "checkpoint_every": 1})
    await bench.trainer.run(job_id)
    job = await bench.job(job_id)
    assert (job.state, job.error_message) == (
        "failed",
        "the backbone failed on this request: PermissionError",
    )


async def test_checkpoints_that_there_is_no_room_for_do_not_end_a_training(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, sizes = bench.objects.put_bytes, []

    async def full_at_first(key: str, data: bytes) -> None:
        sizes.append(len(data))
        if len(sizes) < 3:
            raise StorageFullError("no room")
        await put(key, data)

    monkeypatch.setattr(bench.objects, "put_bytes", full_at_first)
    job_id = await bench.enqueue(tmp_path, CONFIG)
    await bench.trainer.run(job_id)
    assert len(sizes) > 3
    assert (await bench.job(job_id)).state == "succeeded"


async def test_a_job_waits_until_there_is_room_for_its_items(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_key: str, _path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job_id = await bench.enqueue(tmp_path, {**CONFIG, "epochs": 1})
    with monkeypatch.context() as patched:
        patched.setattr(training_module, "PAUSE_WITHOUT_ROOM_SECONDS", 0.0)
        patched.setattr(bench.objects, "get_file", full)
        for _ in range(7):
            await bench.trainer.run(job_id)
    job = await bench.job(job_id)
    assert (job.state, job.attempts, job.error_code) == ("queued", 0, None)
    await bench.trainer.run(job_id)
    assert (await bench.job(job_id)).state == "succeeded"


async def test_a_database_that_is_lost_when_a_result_is_stored_fails_no_job(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_args: object, **_options: object) -> None:
        raise OperationalError("insert", {}, Exception("the server went away"))

    job_id = await bench.enqueue(tmp_path, {**CONFIG, "epochs": 1})
    with monkeypatch.context() as patched:
        patched.setattr(training_module, "store_result", lost)
        await bench.trainer.run(job_id)
    assert (await bench.job(job_id)).state == "running"
    await bench.take_for_dead(job_id)
    await bench.trainer.run(job_id)
    assert (await bench.job(job_id)).state == "succeeded"
    assert await bench.num_vectors() == 1
