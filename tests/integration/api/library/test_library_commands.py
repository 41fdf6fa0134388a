"""The commands of the library, and the SDK that they are made of, against a running api."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from app.cli.app import build
from vlibrary_client import AsyncClient, Client, ConflictError, InvalidInputError

KEYS = ("--action", "key.create")

runner = CliRunner()


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
    for limit, is_cut in (("1", True), ("2", False)):
        words = ("vectors", "list", "--name", "gears", "--limit", limit, "--url", url)
        assert ("There is more" in runner.invoke(build(), words).stderr) == is_cut
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
    client.vectors.add_evaluation(
        "gears",
        dataset="easy-vqa",
        split="test",
        scorer="exact-match",
        items=50,
        accuracy=0.9,
        interval=(0.8, 1.0),
    )
    words = "--dataset easy-vqa --split test --scorer exact-match --items 50 --accuracy 0.6"
    shares = ("--low", "0.5", "--high", "0.7", "--zero-shot", "0.25", "--knn-icl", "0.5")
    shown = call(url, "evaluation", "colours", *words.split(), *shares)
    assert "Attached to colours: 60.0 % on easy-vqa test" in shown
    (measured,) = client.vectors.get("colours").evaluations
    assert (measured.low, measured.high, measured.zero_shot) == (0.5, 0.7, 0.25)
    assert (measured.icl, measured.knn_icl) == (None, 0.5)
    call(url, "evaluation", "none", *words.split(), *shares, code=1)
    assert "best" in call(url, "compare", "gears", "colours")
    call(url, "evaluation", "gears@1", *words.split(), *shares)
    assert call(url, "compare", "gears@1", "colours").count("highest") == 2
    assert "90.0 %" in call(url, "show", "gears")
    output = call(url, "combine", "sum", "gears=0.5", "colours=-1", "--tag", "a", "--tag", "b")
    assert "Stored sum@1" in output
    made = client.vectors.combine("sum", {"gears": 0.5, "colours": -1.0})
    assert (made.version, made.best_part) == (1, client.vectors.get("gears").id)
    assert made.tags == ("a", "b")
    mean = client.vectors.combine("mean", ["gears", "colours"])
    weights = [part["weight"] for part in mean.hyper_parameters["parts"]]
    assert weights == [0.5, 0.5]
    call(url, "combine", "sum", "gears=0.5", "colours", code=2)
    call(url, "combine", "sum", "gears", "gears", "colours", code=2)
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


def test_questions_have_commands(url: str, client: Client, tmp_path: Path) -> None:
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
    told = runner.invoke(build(), (*asked, "--vector", "auto")).stderr
    assert "applied: nothing: `auto` abstained (no-vectors)" in told
    told = runner.invoke(build(), (*asked, "--vector", "auto=0.5")).stderr
    assert "stands alone" in told
    run(*asked, "--vector", "gears", "--prefer", "gears", code=1)
    assert '"abstained": true' in run(
        "retrieve", "--text", "What?", *wanted, "--url", url, "--json"
    )
    run("retrieve", "--text", "q", "--tag", "a", "--name", "gears", "--url", url)
    run("retrieve", "--url", url, code=2)
    epoch = client.retrieve(text="q").epoch
    seen = run("retrieve", "--text", "q", "--min-epoch", str(epoch), "--url", url, "--json")
    assert f'"epoch": {epoch}' in seen
    run("retrieve", "--text", "q", "--backbone", "0" * 64, "--url", url, code=1)


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
    rest = list(client.audit(after=page.next_after or 0))
    assert (len(page), rest[0].details["name"]) == (2, "colours")
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
    client.vectors.update("gears@2", tags=["a", "b"])
    shown = run("audit", "--subject", "gears@2", "--url", url)
    assert "tags stored → a b" in shown
    assert "scopes read steer" in run("audit", "--subject", "web", "--url", url)


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
