"""Requests made from the schema against the whole api: no 5xx, and nothing the schema denies.

A worker that answers at once stands in for the one with a backbone, and jobs end soon, since
nobody would train for them.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.core.errors import VLibraryError
from app.core.settings import Settings
from app.library.access.access_keys import create_access_key
from app.library.database import Sessions, make_engine, run_transaction, session_factory
from app.library.training.attempts import claim_job, fail_job
from app.library.training.jobs import list_jobs
from app.main import create_app
from tests.fakes.library import store, store_dataset
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker

CASES = int(os.environ.get("VLIBRARY_FUZZ_CASES", "5000"))  # noqa: TID251 - of the test alone
# Of the quick run.
MIN_CASES = 50
EXAMPLES = 25
REQUEST_SECONDS = 30
SCHEMA_SECONDS = 300
UNFIT_CHECKS = (
    # Rules between fields stand in no schema; they are refused in words.
    "positive_data_acceptance",
    # `/vectors/batch` is also the place of a vector of that name, so more is allowed there.
    "allow_header_conformance",
)
JOB_SECONDS = 0.2


class Service(NamedTuple):
    """Where it is, and a key that opens all of it."""

    url: str
    key: str


async def prepare(sessions: Sessions, worker: FakeWorker) -> str:
    """A key, and something to be found: what the examples of the schema name."""
    async with sessions.begin() as session:
        for seed in range(3):
            await store(session, "colours", seed=seed, backbone=worker.description)
        await store(session, "gears", seed=9, backbone=worker.description)
        await store_dataset(session, "easy-vqa")
        _, token = await create_access_key(session, name="fuzz", scopes=("admin",))
    return token.text


async def end_jobs(sessions: Sessions, ending: threading.Event) -> None:
    """Fails every job soon after it was queued, so that its stream of events ends."""
    while not ending.is_set():
        async with sessions() as session:
            queued = await list_jobs(session, state="queued", limit=200)
        for job in queued.items:

            async def fail(session: Any, job_id: Any = job.id) -> None:  # noqa: ANN401
                _, token = await claim_job(session, job_id)
                await fail_job(session, job_id, token, code="error", message="nobody trains here")

            try:
                await run_transaction(sessions, fail)
            except VLibraryError:
                continue
        await asyncio.sleep(JOB_SECONDS)


@contextmanager
def jobs_ending(database: str) -> Iterator[None]:
    async def run() -> None:
        engine = make_engine(database, pool_size=1)
        await end_jobs(session_factory(engine), ending)
        await engine.dispose()

    ending = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[Service]:
    """The address of an api with a few things stored."""
    worker = FakeWorker()

    async def fill() -> str:
        engine = make_engine(database, pool_size=1)
        try:
            return await prepare(session_factory(engine), worker)
        finally:
            await engine.dispose()

    key = asyncio.run(fill())
    settings = Settings.model_validate(
        {"database_url": database, "data_dir": tmp_path, "require_keys": True}
    )
    with jobs_ending(database), serving(create_app(settings, workers=worker.client())) as url:
        # The schema is made when it is first asked for, and the generator waits 10 s for it.
        httpx.get(f"{url}/openapi.json", timeout=SCHEMA_SECONDS, trust_env=False).raise_for_status()
        yield Service(url, key)


def fuzz(service: Service, folder: Path, *, seed: int, choices: Sequence[str] = ()) -> int:
    """How many requests one run of the phases sent; what it finds wrong fails the test."""
    report = folder / "report.json"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{service.url}/openapi.json",
        f"--header=Authorization: Bearer {service.key}",
        f"--seed={seed}",
        f"--request-timeout={REQUEST_SECONDS}",
        f"--max-response-time={REQUEST_SECONDS}",
        f"--report-json-path={report}",
        "--report=json",
        "--checks=all",
        f"--exclude-checks={','.join(UNFIT_CHECKS)}",
        # The key at hand would be among those that are revoked.
        "--exclude-operation-id=access_revoke",
        "--continue-on-failure",
        "--warnings=off",
        # Of the generator, not of the api: on a busy machine it is slow, and patterns are narrow.
        "--suppress-health-check=all",
        *choices,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    found = json.loads(report.read_text())
    assert (done.returncode, found["failures"], found["errors"]) == (0, [], []), done.stdout
    count: int = found["test_cases"]["generated"]
    return count


def test_a_few_requests_of_the_schema_are_answered_as_it_says(
    service: Service, tmp_path: Path
) -> None:
    choices = ["--phases=examples,fuzzing,stateful", "--max-examples=1"]
    assert fuzz(service, tmp_path, seed=1, choices=choices) > MIN_CASES


@pytest.mark.fuzz
def test_thousands_of_requests_of_the_schema_are_answered_as_it_says(
    service: Service, tmp_path: Path
) -> None:
    count = seed = 0
    while count < CASES:
        seed += 1
        count += fuzz(service, tmp_path, seed=seed, choices=[f"--max-examples={EXAMPLES}"])
    print(f"{count} requests in {seed} runs: 0 failures")  # noqa: T201 - the figure
