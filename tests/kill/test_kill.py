"""kill -9 of every part again and again, at random times and at failpoints, while clients write.

What was acknowledged must be there afterwards, nothing may be there twice, and the service must be
ready again without anybody's help. `VLIBRARY_KILL_CYCLES` (200) and `VLIBRARY_KILL_SEED` choose.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.fakes.servers.installation import ROOT, Installation, descendants, is_alive
from tests.fakes.vectors import make_description
from tests.fakes.waiting import wait_until
from tests.kill.ledger import Ledger, Thing
from tests.kill.writers import (
    TRAINED,
    Caller,
    Librarian,
    Student,
    Uploader,
    Writer,
    body_digest,
    lost,
    upload_lessons,
)

pytestmark = pytest.mark.kill

CYCLES: Final = int(os.getenv("VLIBRARY_KILL_CYCLES", "200"))
SEED: Final = int(os.getenv("VLIBRARY_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
PLACES: Final = (
    "api-upload-received",
    "api-file-stored",
    "api-vector-inserted",
    "api-dataset-deleted",
    "api-before-commit",
    "api-after-commit",
    "worker-vector-inserted",
    "worker-result-stored",
    "worker-job-claimed",
    "worker-checkpoint",
    "worker-result-published",
)
VICTIMS: Final = ("api", "worker", "postmaster", "supervisor")
WEIGHTS: Final = (0.3, 0.25, 0.3, 0.15)
PROMISED_SECONDS: Final = 10.0
# How long a recovery takes is counted; a busy machine must not turn waiting into failing.
GIVEN_UP_SECONDS: Final = 600.0
LEFT_OVER_SECONDS: Final = 5.0
PLACE_SECONDS: Final = 6.0
QUESTION: Final = {"prompt": "What color is it?", "max_tokens": 1}
MOST_CHECKED: Final = 40


@dataclass
class Report:
    """What happened, for the summary."""

    seed: int
    load_seconds: float
    kills: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[float, str]] = field(default_factory=list)
    left_over_seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def summary(self, writers: "list[Writer]") -> dict[str, Any]:
        limit = PROMISED_SECONDS + self.load_seconds
        answers = sum((writer.caller.answers for writer in writers), Counter[str]())
        return {
            "cycles": len(self.recoveries),
            "seed": self.seed,
            "acknowledged": sum(writer.num_acknowledged for writer in writers),
            "lost": len(self.lost),
            "kills": dict(self.kills),
            "at_failpoints": dict(self.places),
            "load_seconds": round(self.load_seconds, 1),
            "slowest_recovery_seconds": max(self.recoveries, default=None),
            "recoveries_over_limit": sum(seconds > limit for seconds, _ in self.recoveries),
            "slowest_end_of_children_seconds": max(self.left_over_seconds, default=None),
            "answers": dict(sorted(answers.items())),
        }


class Killer:
    """Kills one part at a time and waits until the service is ready again."""

    def __init__(self, installation: Installation, *, http: httpx.Client, report: Report) -> None:
        self.installation = installation
        self.report = report
        self._dice = random.Random(report.seed)  # noqa: S311 - repeatable, not secret
        self._armed = installation.folder / "armed"
        self._http = http

    def cycle(self) -> str:
        """One kill and its recovery, in words."""
        wait_until(self._is_ready, seconds=GIVEN_UP_SECONDS)
        while not (before := self._seen()):
            time.sleep(0.02)
        (victim,) = self._dice.choices(VICTIMS, WEIGHTS)
        family = descendants(self.installation.pid)
        where = "at random"
        if self._dice.random() < 0.5:
            where = self._kill_at_place(victim, before)
        else:
            time.sleep(self._dice.uniform(0, 1.5))
            _kill(before[victim])
        began = time.monotonic()
        if victim == "supervisor":
            self._start_again(family)
        try:
            wait_until(lambda: self._is_back(victim, before), seconds=GIVEN_UP_SECONDS)
        except AssertionError:
            pytest.fail(f"not ready after the end of {victim} {where}: {self._state(before)}")
        seconds = round(time.monotonic() - began, 2)
        self.report.kills[victim] += 1
        self.report.recoveries.append((seconds, f"{victim} {where}"))
        return f"{victim} {where}, ready after {seconds} s"

    def _kill_at_place(self, victim: str, pids: dict[str, int]) -> str:
        own = {"api": "api-", "worker": "worker-"}.get(victim, "")
        place = self._dice.choice([one for one in PLACES if one.startswith(own)])
        armed = self._armed / place
        unready = armed.with_suffix(".new")
        unready.write_text(str(0 if own else pids[victim]))
        unready.rename(armed)
        deadline = time.monotonic() + PLACE_SECONDS
        while armed.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            armed.unlink()
        except FileNotFoundError:
            self.report.places[place] += 1
            return f"at {place}"
        _kill(pids[victim])
        return f"at random, {place} was not reached"

    def _start_again(self, family: set[int]) -> None:
        self.installation.wait()
        killed = time.monotonic()
        wait_until(lambda: not any(map(is_alive, family)), seconds=GIVEN_UP_SECONDS)
        self.report.left_over_seconds.append(round(time.monotonic() - killed, 2))
        self.installation.start().close()

    def _pids(self) -> dict[str, int]:
        pid_file = self.installation.folder / "postgres" / "pgdata" / "postmaster.pid"
        return {
            "api": self.installation.child("api"),
            "worker": self.installation.child("worker"),
            "postmaster": int(pid_file.read_text().split()[0]),
            "supervisor": self.installation.pid,
        }

    def _seen(self) -> dict[str, int]:
        """The processes; none while one is missing, or forks a child that still looks like it."""
        try:
            return self._pids()
        except (OSError, ValueError, IndexError):
            return {}

    def _is_ready(self) -> bool:
        """Whether it says so and answers: a worker that died is noticed within a second."""
        url = self.installation.url
        try:
            return (
                self._http.get(f"{url}/readyz").is_success
                and self._http.post(f"{url}/steer/generate", json=QUESTION).is_success
            )
        except httpx.TransportError:
            return False

    def _state(self, before: dict[str, int]) -> str:
        """What there is to see of a service that does not come back."""
        try:
            told = self._http.get(f"{self.installation.url}/readyz").text
        except httpx.TransportError as error:
            told = repr(error)
        return f"{told}; processes {before}, now {self._seen()}\n{self.installation.told()}"

    def _is_back(self, victim: str, before: dict[str, int]) -> bool:
        return self._seen().get(victim, before[victim]) != before[victim] and self._is_ready()


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextmanager
def writing(writers: list[Writer], ending: threading.Event) -> Iterator[None]:
    """The writers write during the block."""
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        ending.set()
        for writer in writers:
            writer.join()
            writer.caller.http.close()


def load_seconds(backbone: str) -> float:
    """How long a process takes that only loads the backbone."""
    began = time.monotonic()
    script = "import sys; from app.method.backbone.loading import load_backbone as load; "
    subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script + "load(sys.argv[1], device='cpu')", backbone],
        cwd=ROOT,
        check=True,
    )
    return time.monotonic() - began


def recent(ledger: Ledger, dice: random.Random) -> list[Thing]:
    """The newest things, and as many of the older ones."""
    things = ledger.things()
    older = things[:-MOST_CHECKED]
    return [*dice.sample(older, min(len(older), MOST_CHECKED)), *things[-MOST_CHECKED:]]


@pytest.fixture
def checker(installation: Installation) -> Iterator[Caller]:
    """Looks at what is there, in a service that runs."""
    installation.start().close()
    made = Caller(installation.url)
    yield made
    made.http.close()


def test_no_acknowledged_write_is_lost(
    installation: Installation, checker: Caller, tmp_path: Path
) -> None:
    (served,) = checker.http.get("/backbones").json()["items"]
    backbone = make_description(
        served["fingerprint"], num_layers=served["num_layers"], hidden_size=served["hidden_size"]
    )
    ledger, ending = Ledger(), threading.Event()
    upload_lessons(checker.http, tmp_path)
    student = Student(installation.url, ledger, ending=ending)
    writers = [
        Uploader(installation.url, ledger, ending=ending),
        Librarian(installation.url, ledger, ending=ending, backbone=backbone),
        student,
    ]
    report = Report(seed=SEED, load_seconds=load_seconds(str(tmp_path / "tiny")))
    killer = Killer(installation, http=checker.http, report=report)
    dice = random.Random(SEED)  # noqa: S311 - repeatable
    try:
        with writing(writers, ending):
            for cycle in range(1, CYCLES + 1):
                told = killer.cycle()
                report.lost += lost(checker, ledger, recent(ledger, dice))
                print(f"{cycle}/{CYCLES} {told}, {len(report.lost)} lost", flush=True)  # noqa: T201
        report.lost += lost(checker, ledger, ledger.things())
    finally:
        print(json.dumps(report.summary(writers), indent=1))  # noqa: T201 - what it was run for
    unexpected = [text for writer in writers for text in writer.unexpected]
    assert (report.lost, unexpected) == ([], [])
    assert_trained_once(checker.http, student.jobs)
    assert CYCLES < 10 or report.places
    findings = installation.doctor()
    assert all(findings.values()), findings


def assert_trained_once(http: httpx.Client, jobs: list[str]) -> None:
    """Every job has one result, and all results are equal to the bit, interrupted or not."""
    deadline = time.monotonic() + GIVEN_UP_SECONDS
    ended = [_ended(http, job, deadline=deadline) for job in jobs]
    assert [job["state"] for job in ended] == ["succeeded"] * len(jobs)
    refs = [job["vector"]["id"] for job in ended]
    assert len(set(refs)) == len(refs)
    digests = {body_digest(http.get(f"/vectors/{ref}/file").content) for ref in refs}
    assert len(digests) <= 1
    known = http.get("/vectors", params={"name": TRAINED, "limit": 200}).json()["items"]
    # One request at most was neither acknowledged nor repeated.
    assert 0 <= len(known) - len(refs) <= 1


def _ended(http: httpx.Client, job_id: str, *, deadline: float) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = http.get(f"/train/{job_id}").raise_for_status().json()
        if job["state"] not in {"queued", "running"}:
            return job
        assert time.monotonic() < deadline, "a job does not end"
        time.sleep(0.5)
