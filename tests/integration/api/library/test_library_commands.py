"""The commands of the library, and the SDK that they are made of, against a running api."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from PIL import Image
from typer.testing import CliRunner, Result

from app.cli.app import build
from app.core.settings import Settings
from app.library.database import make_engine, session_factory
from app.main import create_app
from tests.fakes.servers.live_server import serving
from tests.fakes.servers.worker import FakeWorker
from tests.fakes.training import store_vector
from vlibrary_client import AsyncClient, Client, ConflictError, InvalidInputError

KEYS = ("--action", "key.create")

runner = CliRunner()


@pytest.fixture
def live_api(settings: Settings, worker: FakeWorker) -> FastAPI:
    return create_app(settings, workers=worker.client())


@pytest.fixture
def url(live_api: FastAPI, worker: FakeWorker, database: str) -> Iterator[str]:
    async def store() -> None:
        engine = make_engine(database)
        for seed, name in enumerate(["gears", "gears", "colours"]):
            await store_vector(session_factory(engine), worker.description, name=name, seed=seed)
        await engine.dispose()

    with serving(live_api) as address:
        asyncio.run(store())
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=120.0, max_retries=0) as opened:
        yield opened


def call(url: str, *arguments: str, code: int = 0) -> str:
    result = runner.invoke(build(), ["vectors", *arguments, "--url", url])
    assert result.exit_code == code, result.output
    return result.stdout


def refs(output: str) -> list[str]:
    # The api of this process may log beside it.
    found, _ = json.JSONDecoder().raw_decode(output, output.index("{\n"))
    return [f"{item['name']}@{item['version']}" for item in found["items"]]


def test_vectors_are_found_tagged_and_deleted(url: str) -> None:
    assert refs(call(url, "list", "--json")) == ["colours@1", "gears@2", "gears@1"]
    assert refs(call(url, "list", "--json", "--text", "GEAR", "--limit", "1")) == ["gears@2"]
    assert "gears@2" in call(url, "list", "--name", "gears")
    call(url, "tag", "gears@1", "colours", "--add", "new", "--remove", "stored")
    tagged = refs(call(url, "list", "--json", "--tag", "new"))
    assert tagged == ["colours@1", "gears@1"]
    call(url, "status", "retired", "gears@1")
    assert '"status": "retired"' in call(url, "show", "gears@1", "--json")
    call(url, "alias", "gears", "prod", "--version", "1", "--expected", "0")
    output = call(url, "delete", "gears@1", "gears@2", code=1)
    assert "gears@1: gears@1 is still called prod" in output
    assert "Deleted gears@2" in output
    call(url, "alias", "gears", "prod", "--delete", "--expected", "2", code=1)
    call(url, "alias", "gears", "--expected", "1", code=2)
    call(url, "alias", "gears", "prod", "--delete", "--expected", "1")
    call(url, "delete", "gears@1")
    assert refs(call(url, "list", "--json")) == ["colours@1"]


def test_every_filter_of_the_api_is_an_option(url: str, client: Client) -> None:
    call(url, "alias", "gears", "prod", "--version", "1")
    summed = client.vectors.combine("sum", ["gears@1", "colours"])
    parent = str(client.vectors.get("colours").id)
    assert refs(call(url, "list", "--json", "--alias", "prod")) == ["gears@1"]
    assert refs(call(url, "list", "--json", "--parent", parent)) == ["sum@1"]
    assert refs(call(url, "list", "--json", "--method", summed.method)) == ["sum@1"]
    moment = f"{summed.created:%Y-%m-%dT%H:%M:%S%z}"
    assert "sum@1" in refs(call(url, "list", "--json", "--after", moment))
    assert refs(call(url, "list", "--json", "--before", "2020-01-01")) == []
    assert refs(call(url, "list", "--json", "--dataset", "0" * 64)) == []
    assert refs(call(url, "list", "--json", "--job", parent)) == []
    assert refs(call(url, "list", "--json", "--min-gain", "0.5")) == []


def test_vectors_are_compared_combined_and_pruned(url: str, client: Client) -> None:
    for ref, accuracy in (("gears", 0.9), ("colours", 0.6)):
        client.vectors.add_evaluation(
            ref,
            dataset="easy-vqa",
            split="test",
            scorer="exact-match",
            items=50,
            accuracy=accuracy,
            interval=(accuracy - 0.1, accuracy + 0.1),
        )
    assert "best" in call(url, "compare", "gears", "colours")
    assert "90.0 %" in call(url, "show", "gears")
    output = call(url, "combine", "sum", "gears=0.5", "colours=-1")
    assert "Stored sum@1" in output
    made = client.vectors.combine("sum", {"gears": 0.5, "colours": -1.0})
    assert (made.version, made.best_part) == (1, client.vectors.get("gears").id)
    mean = client.vectors.combine("mean", ["gears", "colours"])
    weights = [part["weight"] for part in mean.hyper_parameters["parts"]]
    assert weights == [0.5, 0.5]
    call(url, "combine", "sum", "gears=0.5", "colours", code=2)
    assert "gears@1" in call(url, "prune", "gears", "--keep-last", "1")
    assert [vector.ref for vector in client.vectors.iterate(name="gears")] == ["gears@2"]


def test_the_sdk_pages_through_filtered_vectors(client: Client) -> None:
    page = client.vectors.list(limit=1, tag=["stored"], text="gears")
    assert [vector.ref for vector in page] == ["gears@2"]
    rest = client.vectors.list(cursor=page.next_cursor, tag=["stored"], text="gears")
    assert [vector.ref for vector in rest] == ["gears@1"]
    with pytest.raises(InvalidInputError, match="other filters"):
        client.vectors.list(cursor=page.next_cursor, text="gears")
    moment = client.vectors.get("gears@2").created
    later = client.vectors.list(created_after=moment, min_accuracy=None)
    assert [vector.ref for vector in later] == ["colours@1", "gears@2"]
    client.vectors.set_alias("gears", "prod", 1)
    assert [alias.alias for alias in client.vectors.aliases("gears")] == ["latest", "prod"]
    with pytest.raises(ConflictError):
        client.vectors.delete("gears@1")


def test_a_server_that_is_away_is_named_in_one_line() -> None:
    result = runner.invoke(build(), ["vectors", "list", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("vlibrary: ")
    assert "http://127.0.0.1:9" in line


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
    assert job.record.config["epochs"] == 1
    assert str(job.id) in run("jobs", "list", "--url", url, "--json")
    assert str(job.id) not in run("jobs", "list", "--state", "running", "--url", url, "--json")
    assert "cancelled" in run("jobs", "cancel", str(job.id), "--url", url)
    run("jobs", "watch", str(job.id), "--url", url, code=1)
    assert '"deleted": "parts"' in run("datasets", "delete", "parts", "--url", url, "--json")
    run("datasets", "delete", "parts", "--url", url, code=1)


def test_questions_have_commands(url: str, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (16, 16), "red").save(picture)
    asked = ("steer", "What colour?", "--image", str(picture), "--url", url)
    assert "gears@2*0.5" in run(*asked, "--vector", "gears@2=0.5")
    assert '"applied": []' in run(*asked, "--json")
    run(*asked, "--vector", "none", code=1)
    output = run("retrieve", "--text", "What colour?", "--url", url, "--json")
    assert '"abstained": true' in output
    wanted = ("--prefer", "gears", "--any-state")
    assert '"no-vectors"' in run(*asked, "--vector", "auto", *wanted, "--json")
    run(*asked, "--vector", "gears", "--prefer", "gears", code=1)
    assert '"abstained": true' in run(
        "retrieve", "--text", "What?", *wanted, "--url", url, "--json"
    )
    run("retrieve", "--text", "q", "--tag", "a", "--name", "gears", "--url", url)
    run("retrieve", "--url", url, code=2)


def test_keys_and_the_trail_have_methods_and_a_command(
    url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.keys.create("web", ["read", "steer"], valid_days=3)
    assert made.key not in repr(made)
    assert made.key.startswith(f"vlib_{made.id}_")
    assert client.keys.revoke(made.id).revoked is not None
    assert [key.id for key in client.keys.list().items] == [made.id]
    page = client.audit(action="vector.create", limit=2)
    assert [deed.details["name"] for deed in page.items] == ["gears", "gears"]
    rest = client.audit(after=page.next_after or 0).items
    assert rest[0].details["name"] == "colours"
    # The api logs in the same process.
    output = run("audit", *KEYS, "--url", url, "--json")
    told = re.search(r"^{\n.*^}$", output, re.DOTALL | re.MULTILINE)
    assert told is not None
    (deed,) = json.loads(told[0])["items"]
    assert (deed["subject"], deed["details"]["name"]) == (made.id, "web")
    assert deed["created"] == client.audit(action="key.create").items[0].created.isoformat()
    client.vectors.set_alias("gears", "prod", 1)
    client.vectors.set_alias("gears", "prod", 2)
    client.vectors.update("gears@2", description="worn")
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("audit", "--after", str(deed["id"]), "--url", url)
    assert "version 2, previous 1" in shown
    assert "description  → worn" in shown


def test_a_combination_is_queued_by_command_and_sdk(url: str, client: Client) -> None:
    items = [
        {"image": Image.new("RGB", (32, 32), (n, 0, 0)), "question": "which?", "answer": "a"}
        for n in range(4)
    ]
    client.datasets.upload(items, name="more")
    words = ("combine", "both", "gears@1", "colours", "--dataset", "more", "--detach")
    result = runner.invoke(build(), ["jobs", *words, "--rule", "mean", "--url", url])
    assert result.exit_code == 0, result.output
    (job,) = client.jobs()
    assert job.record.config["combine"]["rule"] == "mean"

    async def ask() -> str:
        async with AsyncClient(url) as other:
            made = await other.combine("both", ["gears@1", "colours"], "more", seed=1)
            return str(made.record.config["combine"]["rule"])

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
    asked = job.record.config["evaluate"]
    assert (job.record.name, asked["methods"], asked["shots"], asked["items"]) == (
        "gears",
        ["icl"],
        2,
        3,
    )

    async def ask() -> int:
        async with AsyncClient(url) as other:
            made = await other.evaluate("colours", "more", seed=7)
            return int(made.record.config["evaluate"]["seed"])

    assert asyncio.run(ask()) == 7
    with pytest.raises(InvalidInputError, match="methods"):
        client.evaluate("gears", "more", methods=["luck"])  # type: ignore[list-item]  # refused


def test_vectors_become_control_vector_files(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def export(*words: str) -> Result:
        return runner.invoke(build(), ["export", *words, "--url", url])

    done = export("gears@1", "none", "colours", "--to", "gguf")
    assert done.exit_code == 1
    assert "none: " in done.stdout
    assert "Lossy" in done.stdout
    assert "not measured" in done.stdout
    assert sorted(path.name for path in tmp_path.glob("*.gguf")) == [
        "colours@1.gguf",
        "gears@1.gguf",
    ]
    told = export("gears", "--to", str(tmp_path / "g.gguf"), "--json").stdout
    found, _ = json.JSONDecoder().raw_decode(told, told.index("{\n"))
    assert found["items"][0]["file"] == str(tmp_path / "g.gguf")
    assert 0 < found["items"][0]["late_share"] < 1
    assert export("gears", "colours", "--to", "both.gguf").exit_code == 2
    assert export("gears", "--to", "folder", "--measure", "easy-vqa").exit_code == 2

    async def again() -> Path:
        async with AsyncClient(url) as client:
            return (await client.vectors.export_gguf("gears@1", "again.gguf")).path

    assert asyncio.run(again()).read_bytes() == Path("gears@1.gguf").read_bytes()
