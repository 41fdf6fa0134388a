"""Postgres ends and is started again while clients use the library: their retries hide it."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.library.migrate import upgrade
from app.main import create_app
from app.postgres.server import EmbeddedPostgres
from tests.fakes.api_calls import png
from tests.fakes.exposition import parse_metrics
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.training import vector_file
from tests.fakes.waiting import wait_until
from vlibrary_client import Client

QUESTION = "What colour is it?"
# What needs the database and is asked for, as the metrics name it.
ASKED = (
    "POST /vectors",
    "PATCH /vectors/{ref}",
    "PUT /vectors/{name}/aliases/{alias}",
    "GET /vectors",
    "POST /steer/generate",
    "POST /train",
    "POST /datasets",
)


@pytest.fixture
def postgres(pristine: Path, open_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, whose database is migrated."""
    subprocess.run(["/bin/cp", "-a", pristine, open_folder], check=True)  # noqa: S603 - our own
    with EmbeddedPostgres(open_folder / "postgres") as server:
        upgrade(server.url)
        yield server


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def api(postgres: EmbeddedPostgres, worker: FakeWorker, tmp_path: Path) -> FastAPI:
    settings = Settings.model_validate({"database_url": postgres.url, "data_dir": tmp_path})
    return create_app(settings, workers=worker.client())


@pytest.fixture
def url(api: FastAPI) -> Iterator[str]:
    with serving(api) as address:
        yield address


class Callers:
    """Threads that call again and again, each through a client with ordinary retries."""

    def __init__(self, url: str, calls: dict[str, Callable[[Client, int], object]]) -> None:
        self.done = dict.fromkeys(calls, 0)
        self.errors: list[Exception] = []
        self._url = url
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(name, call), name=name)
            for name, call in calls.items()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    @property
    def has_failed(self) -> bool:
        return bool(self.errors)

    def wait_for_more(self) -> None:
        """Returns when every call has succeeded again, or one has failed."""
        before = dict(self.done)
        wait_until(lambda: self.has_failed or all(self.done[one] > before[one] for one in before))

    def _repeat(self, name: str, call: Callable[[Client, int], object]) -> None:
        with Client(self._url) as client:
            try:
                while not self._ending.is_set():
                    call(client, self.done[name])
                    self.done[name] += 1
            except Exception as error:  # noqa: BLE001 - whatever a user would see
                self.errors.append(error)


def kill(postgres: EmbeddedPostgres) -> None:
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)


def test_calls_succeed_while_postgres_is_restarted(
    postgres: EmbeddedPostgres, worker: FakeWorker, url: str
) -> None:
    rows: list[dict[str, Any]] = [{"image": png(), "question": QUESTION, "answer": "red"}]
    with Client(url) as client, httpx.Client(base_url=url) as http:
        client.vectors.upload(vector_file(worker.description), name="steers")
        dataset = client.datasets.upload(rows, name="lesson")

        def write(client: Client, number: int) -> None:
            made = client.vectors.upload(vector_file(worker.description, seed=number), name="mine")
            # Neither lost nor done twice.
            assert made.version == number + 1
            client.vectors.update(made, description=f"number {number}")
            client.vectors.set_alias("mine", "current", made.version)

        def refusals() -> dict[str, float]:
            counted = parse_metrics(http.get("/metrics").text)
            name = 'vlibrary_http_requests_total{{method="{}",route="{}",status="503"}}'
            return {one: counted.get(name.format(*one.split()), 0.0) for one in ASKED}

        def num_refused(before: dict[str, float]) -> int:
            return sum(count > before[one] for one, count in refusals().items())

        def told() -> bool:
            reply = http.get("/vectors")
            return reply.status_code == 503 and int(reply.headers["retry-after"]) > 0

        calls: dict[str, Callable[[Client, int], object]] = {
            "write": write,
            "read": lambda client, _: client.vectors.list(),
            "steer": lambda client, _: client.steer.generate(QUESTION, vector="steers"),
            "train": lambda client, number: client.train(f"job-{number}", dataset),
            "upload": lambda client, number: client.datasets.upload(
                [{**rows[0], "answer": str(number)}], name=f"set-{number}"
            ),
        }
        with Callers(url, calls) as callers:
            for end in (EmbeddedPostgres.stop, kill):
                callers.wait_for_more()
                before = refusals()
                end(postgres)
                wait_until(told)
                while num_refused(before) < len(calls) and not callers.has_failed:
                    time.sleep(0.05)
                postgres.start()
            callers.wait_for_more()
        assert callers.errors == []
        kept = list(client.vectors.iterate(name="mine"))
        assert sorted(one.version for one in kept) == list(range(1, callers.done["write"] + 1))
        assert {one.description for one in kept} == {
            f"number {number}" for number in range(len(kept))
        }
        counted = parse_metrics(http.get("/metrics").text)
        assert not [sample for sample in counted if 'status="500"' in sample]
