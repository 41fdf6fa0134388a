import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image

from app.core.settings import Settings
from app.library.database import make_engine, session_factory
from app.main import create_app
from tests.fakes import training
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker, backbone, embedding_of
from tests.fakes.training import Sessions, do_job, store_vector
from tests.fakes.waiting import wait_until
from vlibrary_client import (
    AsyncClient,
    Client,
    IncompatibleBackboneError,
    InvalidDatasetError,
    InvalidImageError,
    InvalidInputError,
    JobCancelledError,
    NotFoundError,
    Progress,
    RequestTimeoutError,
    SteeringError,
    VectorUse,
    WaitTimeoutError,
    WorkerUnavailableError,
)
from vlibrary_client.images import image_bytes

QUESTION = "What colour is it?"


@pytest.fixture
def live_api(settings: Settings, worker: FakeWorker) -> FastAPI:
    return create_app(settings, workers=worker.client())


@pytest.fixture
def url(live_api: FastAPI) -> Iterator[str]:
    with serving(live_api) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=120.0, max_retries=0) as opened:
        yield opened


Work = Callable[[Sessions], Coroutine[Any, Any, Any]]


@pytest.fixture
def with_database(database: str) -> Callable[[Work], Any]:
    """Does something in the database beside the server, as a worker would."""

    async def run(work: Work) -> Any:  # noqa: ANN401 - whatever the work returns
        engine = make_engine(database)
        try:
            return await work(session_factory(engine))
        finally:
            await engine.dispose()

    return lambda work: asyncio.run(run(work))


def picture(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (16, 16), colour)


def items(number: int = 3) -> list[dict[str, object]]:
    return [
        {"image": picture(), "question": f"{QUESTION} {n}", "answer": "red"} for n in range(number)
    ]


def test_from_pictures_to_a_trained_vector(
    client: Client, worker: FakeWorker, with_database: Callable[[Work], Any]
) -> None:
    dataset = client.datasets.upload(items(), name="colours", description="red things")
    assert client.datasets.upload(items(), name="colours").id == dataset.id
    assert client.datasets.get("colours").num_items == 3
    assert [found.id for found in client.datasets.list().items] == [dataset.id]

    job = client.train("colours", dataset, shots=8, epochs=2)
    assert job.state == "queued"
    key = embedding_of(image_bytes(picture()), QUESTION)
    trainer = threading.Thread(
        target=with_database,
        args=(
            lambda sessions: do_job(
                sessions,
                job.id,
                backbone=worker.description,
                key=key,
                between=lambda: time.sleep(0.3),
            ),
        ),
    )
    trainer.start()
    reports: list[Progress] = []
    done = job.wait(progress=reports.append, timeout=120)
    trainer.join()
    assert [report.step for report in reports] == [0, 1, 2]
    assert reports[0].losses["total"] == 1.0
    assert (done.state, done.attempts) == ("succeeded", 1)
    assert done.vector is not None
    assert done.seconds is not None
    assert [event.state for event in done.events() if event.kind == "state"] == [
        "queued",
        "running",
        "succeeded",
    ]

    vector = client.vectors.get("colours")
    assert vector.ref == done.vector.ref == "colours@1"
    assert vector.evaluations[0].accuracy == 0.9


def test_from_a_vector_to_steered_answers(
    client: Client, worker: FakeWorker, with_database: Callable[[Work], Any]
) -> None:
    key = embedding_of(image_bytes(picture()), QUESTION)
    vector = with_database(lambda sessions: store_vector(sessions, worker.description, key=key))
    found = client.retrieve(image=picture(), text=QUESTION)
    assert found.matches[0].vector.id == vector.id
    assert not found.abstained
    assert client.retrieve(image=picture("blue"), text="How late?").abstained

    steered = client.steer.generate(
        QUESTION, images=[picture()], vector=found.matches[0].vector, strength=0.5, baseline=True
    )
    assert (steered.text, steered.applied[0].sha256) == ("colours@1*0.5", vector.sha256)
    assert steered.baseline is not None
    assert steered.baseline.text == "plain"
    auto = client.steer.generate(QUESTION, images=[picture()], vector="auto")
    assert auto.applied[0].id == vector.id
    unrelated = client.steer.generate("How late?", images=[picture("blue")], vector="auto")
    assert (unrelated.text, unrelated.applied) == ("plain", ())
    assert unrelated.retrieval is not None
    assert unrelated.retrieval.abstained


def test_vectors_are_copied_named_and_deleted(
    client: Client, worker: FakeWorker, *, with_database: Callable[[Work], Any], tmp_path: Path
) -> None:
    with_database(lambda sessions: store_vector(sessions, worker.description))
    vector = client.vectors.get("colours")
    path = tmp_path / "colours.safetensors"
    client.vectors.download(vector, to=path)
    copy = client.vectors.upload(path, name="copy", tags=["imported"])
    assert copy.sha256 == vector.sha256
    client.vectors.set_alias("copy", "prod", 1)
    both = client.steer.generate("q", vector=[VectorUse("copy@prod", 2.0), vector])
    assert both.text == "copy@1*2+colours@1*1"
    client.vectors.update(vector, status="retired")
    assert [item.name for item in client.vectors.iterate()] == ["copy", "colours"]
    client.vectors.delete(vector)
    with pytest.raises(NotFoundError):
        client.vectors.get(vector)
    assert client.ready().status == "ready"


def test_errors_arrive_as_their_classes(
    client: Client, worker: FakeWorker, *, with_database: Callable[[Work], Any], tmp_path: Path
) -> None:
    with_database(lambda sessions: store_vector(sessions, backbone("b"), name="other"))
    with_database(lambda sessions: store_vector(sessions, worker.description, name="fits"))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(InvalidDatasetError):
        client.datasets.upload(broken, name="d")
    with pytest.raises(InvalidInputError) as refused:
        client.train("x", "y", shots=1000)
    assert refused.value.errors[0].location == "body.shots"
    assert refused.value.request_id
    with pytest.raises(NotFoundError):
        client.train("x", "y")
    with pytest.raises(IncompatibleBackboneError) as other:
        client.steer.generate("q", vector="other")
    assert other.value.details == {"wanted": ["a" * 64], "found": ["b" * 64]}
    with pytest.raises(InvalidImageError):
        client.steer.generate("q", images=[b"no image"])
    worker.forget_vectors = True
    with pytest.raises(SteeringError):
        client.steer.generate("q", vector="fits")
    worker.is_down = True
    time.sleep(1.1)
    with pytest.raises(WorkerUnavailableError) as down:
        client.steer.generate("q")
    assert down.value.retry_after_seconds == 2.0
    assert client.ready().checks["worker"].ok is False


def test_waiting_and_cancelling(client: Client, with_database: Callable[[Work], Any]) -> None:
    dataset = client.datasets.upload(items(), name="colours")
    job = client.train("colours", dataset)
    start = time.monotonic()
    with pytest.raises(WaitTimeoutError):
        job.wait(timeout=1.0)
    assert time.monotonic() - start < 60
    token = with_database(lambda sessions: training.begin(sessions, job.id))
    assert job.cancel().state == "running"
    assert with_database(lambda sessions: training.report(sessions, job.id, token, step=1))
    with_database(lambda sessions: training.cancel(sessions, job.id, token))
    with pytest.raises(JobCancelledError):
        job.wait(timeout=120)
    assert [event.sequence for event in job.events(after=2)] == [3, 4]


def test_a_listener_that_leaves_gives_its_place_back(client: Client, live_api: FastAPI) -> None:
    dataset = client.datasets.upload(items(), name="colours")
    job = client.train("colours", dataset)
    streams = live_api.state.services.streams
    listeners = [job.events() for _ in range(3)]
    assert [next(listener).state for listener in listeners] == ["queued"] * 3
    assert streams.in_flight == 3
    for listener in listeners:
        listener.close()
    wait_until(lambda: bool(streams.in_flight == 0))


def test_a_client_that_hangs_up_frees_the_worker(client: Client, worker: FakeWorker) -> None:
    worker.is_stuck = True
    while not worker.generated:
        with pytest.raises(RequestTimeoutError):
            client.steer.generate("q", timeout=1.0)
    wait_until(lambda: worker.num_cancelled == len(worker.generated))
    assert worker.running == 0


@pytest.mark.anyio
async def test_the_async_client_does_the_same(url: str, worker: FakeWorker) -> None:
    async with AsyncClient(url, timeout=120.0) as client:
        dataset = await client.datasets.upload(items(), name="colours")
        job = await client.train("colours", dataset, epochs=1)
        with pytest.raises(WaitTimeoutError):
            await job.wait(timeout=0.5)
        assert (await client.job(job.id)).state == "queued"
        assert (await job.cancel()).state == "cancelled"
        answers = await asyncio.gather(
            *(client.steer.generate(f"q{n}", images=[picture()]) for n in range(8))
        )
        assert {answer.text for answer in answers} == {"plain"}
        assert len(worker.generated) == 8
        with pytest.raises(NotFoundError):
            await client.job(uuid.UUID(int=1))
