"""`vlibrary serve` as real processes, used through the SDK, and killed in every way."""

import os
import signal
import socket
import time
from typing import Any

from tests.fakes.backbones import tiny_examples
from tests.fakes.installation import Installation, descendants, is_alive
from tests.fakes.waiting import wait_until
from vlibrary_client import Client

LEFT_OVER_SECONDS = 5.0
CONFIG: dict[str, Any] = {
    "shots": 2,
    "num_queries": 8,
    "batch_size": 4,
    "epochs": 2,
    "held_out_fraction": 0.25,
}


def _items() -> list[dict[str, object]]:
    return [
        {"image": one.image, "question": one.question, "answers": list(one.answers)}
        for one in tiny_examples(24)
    ]


def _ask(client: Client, vector: str | None) -> tuple[str, str | None]:
    image = tiny_examples(2)[0].image
    answer = client.steer.generate(
        "what color is it?", images=[image], vector=vector, max_tokens=8, baseline=True
    )
    assert answer.baseline is not None
    if vector is not None:
        assert answer.receipt.sites_hit == answer.receipt.sites_expected > 0
    return answer.text, answer.baseline.text


def test_serve_works_survives_a_kill_and_leaves_nothing_behind(installation: Installation) -> None:
    client = installation.start()
    with client:
        dataset = client.datasets.upload(_items(), name="colours")
        job = client.train("colours", dataset, **CONFIG).wait(timeout=120)
        assert job.state == "succeeded"
        before = {one.sha256 for one in client.vectors.list().items}
        assert len(before) == 1
        answers = _ask(client, "colours@1")
        assert client.retrieve(image=tiny_examples(2)[0].image, text="which colour is it?").matches
        busy = installation.command("serve")
        assert busy.returncode == 1
        assert f"cannot listen on 127.0.0.1:{installation.port}" in busy.stderr

    family = descendants(installation.pid)
    assert len(family) >= 3
    installation.signal(signal.SIGKILL)
    installation.wait()
    killed = time.monotonic()
    wait_until(lambda: not any(map(is_alive, family)))
    assert time.monotonic() - killed < LEFT_OVER_SECONDS

    with installation.start() as client:
        assert {one.sha256 for one in client.vectors.list().items} == before
        assert _ask(client, "colours@1") == answers
        family = descendants(installation.pid)
    installation.signal(signal.SIGINT)
    assert installation.wait() == 0
    assert not any(map(is_alive, family))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", installation.port)) != 0
    findings = installation.doctor()
    assert all(findings.values()), findings


def test_a_worker_killed_in_mid_training_resumes_and_finishes(installation: Installation) -> None:
    config = {**CONFIG, "epochs": 400, "evaluate_every": 400, "checkpoint_every": 1}
    with installation.start() as client:
        dataset = client.datasets.upload(_items(), name="colours")
        job = client.train("colours", dataset, **config)

        def step() -> int:
            progress = job.refresh().progress
            return progress.step if progress is not None and progress.phase == "student" else 0

        wait_until(lambda: step() > 2)
        reached, worker = step(), installation.child("worker")
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: job.refresh().record.attempts == 2)
        job = job.wait(timeout=240)
        assert job.state == "succeeded"
        assert job.vector is not None
        seen = [
            event.data["step"]
            for event in job.events()
            if event.data.get("phase") == "student" and event.data["step"] > reached
        ]
        # It went on from its checkpoint; from the start it would have to pass `reached` again.
        assert seen
        assert installation.child("worker") != worker
        _ask(client, "colours")
        assert time.monotonic() - killed < 240
    installation.signal(signal.SIGTERM)
    assert installation.wait() == 0
