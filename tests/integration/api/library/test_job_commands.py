"""The commands of data sets and jobs, and the SDK that they are made of, against a running api."""

import asyncio
import json
from pathlib import Path

import psycopg
import pytest
from PIL import Image
from typer.testing import CliRunner

from app.cli.app import build
from app.library.database import conninfo
from vlibrary_client import (
    AsyncClient,
    Client,
    ConfigurationError,
    ConnectionFailedError,
    InvalidInputError,
    Job,
    UnavailableError,
)

runner = CliRunner()


def run(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(build(), arguments)
    assert result.exit_code == code, result.output
    return result.stdout


def test_data_sets_and_jobs_have_commands(url: str, client: Client, tmp_path: Path) -> None:
    rows = [{"file_name": f"{n}.png", "question": "What?", "answer": "red"} for n in range(3)]
    for number, row in enumerate(rows):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / row["file_name"])
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output = run("datasets", "upload", str(tmp_path), "--name", "parts", "--url", url)
    assert "Stored parts" in output
    assert "3 items, 3 images" in output
    assert "parts" in run("datasets", "list", "--url", url)
    queued = run("jobs", "train", "parts", "parts", "--set", "epochs=1", "--detach", "--url", url)
    assert "queued" in queued
    (job,) = client.jobs()
    assert job.config["epochs"] == 1
    assert str(job.id) in run("jobs", "list", "--url", url, "--json")
    assert str(job.id) not in run("jobs", "list", "--state", "running", "--url", url, "--json")
    assert "cancelled" in run("jobs", "cancel", str(job.id), "--url", url)
    run("jobs", "watch", str(job.id), "--url", url, code=1)
    assert '"deleted": "parts"' in run("datasets", "delete", "parts", "--url", url, "--json")
    run("datasets", "delete", "parts", "--url", url, code=1)


@pytest.mark.parametrize(
    "options", [("--report-to", "ledger"), ("--report-to", "tensorboard", "--detach")]
)
def test_what_cannot_be_written_to_is_told_before_there_is_a_job(
    client: Client, url: str, options: tuple[str, ...]
) -> None:
    items = [{"image": Image.new("RGB", (32, 32)), "question": "which?", "answer": "a"}]
    client.datasets.upload(items, name="more")
    for words in (
        ("train", "parts", "more"),
        ("combine", "both", "gears@1", "colours", "--dataset", "more"),
        ("evaluate", "gears@1", "more"),
    ):
        run("jobs", *words, *options, "--url", url, code=2)
    assert list(client.jobs()) == []


@pytest.mark.parametrize(
    ("error", "code", "is_told"),
    [
        (KeyboardInterrupt(), 130, True),
        (ConnectionFailedError("gone"), 1, True),
        (UnavailableError("the server starts again and again"), 1, True),
        (TimeoutError("the tracker does not answer"), 1, True),
        (ConfigurationError("cannot report to wandb"), 1, True),
        (ConfigurationError("the job failed", details={"state": "failed"}), 1, False),
    ],
)
def test_whoever_stops_watching_is_told_how_to_go_on(
    client: Client,
    url: str,
    *,
    error: BaseException,
    code: int,
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Job, "wait", wait)
    items = [{"image": Image.new("RGB", (32, 32)), "question": "which?", "answer": "a"}]
    client.datasets.upload(items, name="more")
    result = runner.invoke(build(), ["jobs", "train", "parts", "more", "--url", url])
    (job,) = client.jobs()
    assert result.exit_code == code
    assert (f"vlibrary jobs watch {job.id}" in result.stderr) == is_told
    assert job.state == "queued"


def test_a_job_that_runs_stops_a_little_later(client: Client, url: str, database: str) -> None:
    items = [{"image": Image.new("RGB", (32, 32)), "question": "which?", "answer": "a"}]
    client.datasets.upload(items, name="more")
    job = client.train("parts", "more")
    with psycopg.connect(conninfo(database), autocommit=True) as connection:
        connection.execute("UPDATE training_jobs SET state = 'running'")
    result = runner.invoke(build(), ["jobs", "cancel", str(job.id), "--url", url])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"{job.id} running")
    assert "It stops at its next step" in result.stderr


def test_a_combination_is_queued_by_command_and_sdk(url: str, client: Client) -> None:
    items = [
        {"image": Image.new("RGB", (32, 32), (n, 0, 0)), "question": "which?", "answer": "a"}
        for n in range(4)
    ]
    client.datasets.upload(items, name="more")
    words = ("combine", "both", "gears@1", "colours", "--dataset", "more", "--detach")
    options = ("--rule", "mean", "--tag", "sum")
    result = runner.invoke(build(), ["jobs", *words, *options, "--url", url])
    assert result.exit_code == 0, result.output
    cut = runner.invoke(build(), ["datasets", "list", "--limit", "1", "--url", url])
    assert "There is more" not in cut.stderr
    client.datasets.upload(items[:2], name="fewer")
    cut = runner.invoke(build(), ["datasets", "list", "--limit", "1", "--url", url])
    assert ("fewer" in cut.stdout, "There is more" in cut.stderr) == (True, True)
    every = run("datasets", "list", "--limit", "300", "--url", url, "--json")
    assert ('"fewer"' in every, '"more"' in every) == (True, True)
    (job,) = client.jobs()
    assert (job.kind, job.config["combine"]["rule"]) == ("combine", "mean")
    assert "combine" in runner.invoke(build(), ["jobs", "list", "--url", url]).stdout

    async def ask() -> str:
        async with AsyncClient(url) as other:
            made = await other.combine("both", ["gears@1", "colours"], "more", seed=1)
            return str(made.config["combine"]["rule"])

    assert asyncio.run(ask()) == "learned"
    with pytest.raises(InvalidInputError, match="Given twice"):
        client.combine("both", ["gears@2", "gears"], "more")


def test_a_measurement_is_queued_by_command_and_sdk(url: str, client: Client) -> None:
    items = [
        {"image": Image.new("RGB", (32, 32), (n, 0, 0)), "question": "which?", "answer": "a"}
        for n in range(4)
    ]
    client.datasets.upload(items, name="more")
    words = ("evaluate", "gears@1", "more", "--method", "icl", "--shots", "2", "--items", "3")
    result = runner.invoke(build(), ["jobs", *words, "--detach", "--url", url])
    assert result.exit_code == 0, result.output
    (job,) = client.jobs()
    asked = job.config["evaluate"]
    assert (job.name, asked["methods"], asked["shots"], asked["items"]) == (
        "gears",
        ["icl"],
        2,
        3,
    )

    async def ask() -> int:
        async with AsyncClient(url) as other:
            made = await other.evaluate("colours", "more", seed=7)
            return int(made.config["evaluate"]["seed"])

    assert asyncio.run(ask()) == 7
    with pytest.raises(InvalidInputError, match="methods"):
        client.evaluate("gears", "more", methods=["luck"])  # type: ignore[list-item]  # refused
