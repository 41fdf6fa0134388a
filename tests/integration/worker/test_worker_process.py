"""A whole worker in this process: its HTTP, its queue and its end, over a real database."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import (
    ConfigurationError,
    NotFoundError,
    UnavailableError,
    WorkerUnavailableError,
)
from app.core.identifiers import sha256_hex
from app.core.settings import Settings
from app.library.datasets import create_dataset
from app.library.records import JobRecord
from app.library.storage import ObjectStore, dataset_key
from app.library.training.jobs import enqueue_training, get_job
from app.library.vectors import get_vector
from app.method.backbone.loading import Backbone
from app.rpc.client import WorkerClient
from app.rpc.messages import EmbedRequest, GenerateRequest, VectorUse
from app.worker.process import running_worker, serve_until_ended
from tests.fakes.answers import answer_of, health_of
from tests.fakes.files.parquet import write_parquet
from tests.fakes.models.backbones import tiny_examples
from tests.fakes.waiting import SECONDS, until

pytestmark = pytest.mark.anyio

Sessions = async_sessionmaker[AsyncSession]
CONFIG: dict[str, Any] = {
    "shots": 2,
    "num_queries": 8,
    "batch_size": 4,
    "epochs": 2,
    "held_out_fraction": 0.25,
    "cross_fit_below": 0,
    "trial_steps": 0,
}


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database,
            "data_dir": tmp_path,
            "worker_role": "both",
            "drain_timeout_seconds": 60,
        }
    )


@asynccontextmanager
async def _client(
    settings: Settings, backbone: Backbone
) -> AsyncIterator[tuple[Callable[[], None], WorkerClient]]:
    async with running_worker(settings, lambda: backbone, on_broken=lambda: None) as (app, drain):
        transport = httpx.ASGITransport(app=app)
        async with WorkerClient(["http://worker"], transport=transport) as client:
            yield drain, client


async def _enqueue(settings: Settings, sessions: Sessions, config: dict[str, Any]) -> uuid.UUID:
    path = write_parquet(settings.data_dir / "data.parquet", tiny_examples(24))
    digest = sha256_hex(path.read_bytes())
    await ObjectStore(settings.objects_url).put_file(dataset_key(digest), path)
    async with sessions() as session, session.begin():
        dataset = await create_dataset(
            session,
            name="colours",
            sha256=digest,
            size_bytes=path.stat().st_size,
            num_items=24,
            num_images=12,
            storage_key=dataset_key(digest),
        )
        job = await enqueue_training(session, name="colours", dataset_id=dataset.id, config=config)
    return job.id


async def _until(
    sessions: Sessions, job_id: uuid.UUID, condition: Callable[[JobRecord], bool]
) -> JobRecord:
    async with asyncio.timeout(SECONDS):
        while True:
            async with sessions() as session:
                job = await get_job(session, job_id)
            if condition(job):
                return job
            await asyncio.sleep(0.02)


def _request(**changes: object) -> GenerateRequest:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (30, 30, 220)).save(stream, "PNG")
    return GenerateRequest.model_validate(
        {
            "request_id": uuid.uuid4().hex,
            "prompt": "what color is it?",
            "images": [stream.getvalue()],
            "max_tokens": 6,
            **changes,
        }
    )


@pytest.fixture
def without_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No room among the system's temporary files, which containers keep in little memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))


@pytest.mark.usefixtures("without_tmp")
async def test_a_queued_job_is_trained_and_its_vector_steers_the_next_request(
    settings: Settings, backbone: Backbone, sessions: Sessions
) -> None:
    job_id = await _enqueue(settings, sessions, CONFIG)
    async with _client(settings, backbone) as (_, client):
        job = await _until(sessions, job_id, lambda job: job.is_final)
        assert job.state == "succeeded"
        async with sessions() as session:
            vector = await get_vector(session, "colours")
        use = VectorUse(sha256=vector.sha256, name="colours", version=1, strength=2.0)
        answer = await answer_of(client, _request(vectors=[use], baseline=True))
        assert answer.receipt.sites_hit == answer.receipt.sites_expected > 0
        assert answer.receipt.vectors[0].sha256 == vector.sha256
        found = await client.embed(EmbedRequest(images=(None,), questions=("which?",)))
        (health,) = await health_of(client.pool)
        assert found.space == health.space
        assert health.backbone == backbone.description
        assert (health.status, health.role, health.running) == ("ready", "both", 0)
        unknown = use.model_copy(update={"sha256": "0" * 64})
        with pytest.raises(NotFoundError):
            await answer_of(client, _request(vectors=[unknown]))


async def test_leaving_gives_the_job_at_hand_back_with_its_checkpoint(
    settings: Settings, backbone: Backbone, sessions: Sessions
) -> None:
    config = {**CONFIG, "epochs": 400, "max_steps": 900, "evaluate_every": 900}
    job_id = await _enqueue(settings, sessions, config)
    async with _client(settings, backbone):
        await _until(sessions, job_id, lambda job: job.progress.get("phase") == "student")
    job = await _until(sessions, job_id, lambda job: job.state == "queued")
    assert job.progress["step"] > 0
    stored = await ObjectStore(settings.objects_url).get_bytes(f"checkpoints/{job_id}")
    assert len(stored) > 1000


async def test_a_worker_that_only_serves_takes_no_job(
    settings: Settings, backbone: Backbone, sessions: Sessions
) -> None:
    job_id = await _enqueue(settings, sessions, CONFIG)
    serving = settings.model_copy(update={"worker_role": "serve"})
    async with _client(serving, backbone) as (_, client):
        await answer_of(client, _request())
        async with sessions() as session:
            assert (await get_job(session, job_id)).state == "queued"


async def test_a_draining_worker_says_so(settings: Settings, backbone: Backbone) -> None:
    async with _client(settings, backbone) as (drain, client):
        drain()
        drain()
        (health,) = await health_of(client.pool)
        assert health.status == "draining"
        with pytest.raises(WorkerUnavailableError):
            await answer_of(client, _request())


async def test_a_worker_needs_a_database(settings: Settings, backbone: Backbone) -> None:
    without = settings.model_copy(update={"database_url": None})
    with pytest.raises(ConfigurationError):
        async with running_worker(without, lambda: backbone, on_broken=lambda: None):
            pass


@asynccontextmanager
async def _served(
    settings: Settings, backbone: Backbone
) -> AsyncIterator[tuple[asyncio.Task[bool], WorkerClient]]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(serve_until_ended(settings, lambda: backbone, listener=listener))
    async with WorkerClient([url]) as client:
        async with asyncio.timeout(SECONDS):
            while not await health_of(client.pool):  # noqa: ASYNC110 - it has no event for being up
                await asyncio.sleep(0.02)
        yield serving, client
        await asyncio.gather(serving, return_exceptions=True)


async def test_sigterm_lets_running_requests_finish_and_ends_the_worker(
    settings: Settings, backbone: Backbone
) -> None:
    async with _served(settings, backbone) as (serving, client):
        running = asyncio.create_task(
            answer_of(client, _request(max_tokens=200, presence_penalty=-2.0))
        )
        async with asyncio.timeout(SECONDS):
            while not any(one.running for one in await health_of(client.pool)):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await running).usage.completion_tokens > 0
        assert await asyncio.wait_for(serving, SECONDS) is False
        assert await health_of(client.pool) == ()


async def test_a_lost_device_ends_the_worker_for_its_supervisor(
    settings: Settings, backbone: Backbone
) -> None:
    def lose(*_: object) -> None:
        raise torch.AcceleratorError("device-side assert")

    async with _served(settings, backbone) as (serving, client):
        handle = backbone.model.register_forward_pre_hook(lose)
        with pytest.raises(UnavailableError, match="was lost"):
            await answer_of(client, _request())
        handle.remove()
        assert await asyncio.wait_for(serving, SECONDS) is True
        await until(serving.done)


_LOADS_FOR_EVER = """
import signal
import threading
from app.core.settings import Settings
from app.worker import process

# What measures the process may have put handlers there, which wait for the main thread.
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)

def load(*_, **__):
    print("loading", flush=True)
    threading.Event().wait()

process.load_backbone = load
process.run(Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_worker_that_loads(number: signal.Signals) -> None:
    command = [sys.executable, "-c", _LOADS_FOR_EVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:  # noqa: S603 - our own script
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"loading\n"
        worker.send_signal(number)
        try:
            assert worker.wait(SECONDS) == -number
        finally:
            worker.kill()
