"""A library that is made to hold what a file declares."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from app.cli.app import build
from vlibrary_client import Client, InvalidInputError
from vlibrary_client.sharing.declarations import Declaration, Entry, Source, read_declaration

runner = CliRunner()


@pytest.fixture
def stored_names() -> list[str]:
    return ["gears", "colours"]


def sync(url: str, folder: Path, value: object, *options: str, code: int = 0) -> dict[str, object]:
    path = folder / "vectors.yaml"
    path.write_text(yaml.safe_dump({"vectors": value}))
    result = runner.invoke(build(), ["sync", str(path), "--url", url, "--json", *options])
    assert result.exit_code == code, result.output
    # The api of this process may log beside it.
    output = result.stdout
    found, _ = json.JSONDecoder().raw_decode(output, output.index("{\n"))
    return {item["name"]: item["error"] or item["changes"] for item in found["items"]}


def test_a_library_holds_what_is_declared_and_the_second_time_changes_nothing(
    client: Client, url: str, tmp_path: Path
) -> None:
    client.vectors.export("gears", tmp_path / "shared")
    (tmp_path / "one.safetensors").write_bytes(client.vectors.download("colours"))
    declared = {
        "a": {"source": {"folder": "shared"}, "tags": ["x"], "aliases": ["prod"]},
        "b": {"source": {"file": "one.safetensors"}, "description": "d", "status": "retired"},
        "c": {"source": {"server": url, "vector": "gears@1"}},
        "sum": {"source": {"combine": {"a": 0.5, "b": -1.0}}, "aliases": ["prod"]},
    }
    planned = sync(url, tmp_path, declared, "--dry-run")
    assert planned["a"] == ["store", "alias prod"]
    assert planned["sum"] == ["combine", "alias prod"]
    orphan = {"sum": {"source": {"combine": {"nobody": 0.5, "gears": -1.0}}}}
    assert "There is no vector nobody" in str(
        sync(url, tmp_path, orphan, "--dry-run", code=1)["sum"]
    )
    assert [vector.name for vector in client.vectors.list()] == ["colours", "gears"]
    assert sync(url, tmp_path, declared) == {
        "a": ["store a@1", "change tags", "alias prod"],
        "b": ["store b@1", "change description", "change status"],
        "c": ["store c@1"],
        "sum": ["combine sum@1", "alias prod"],
    }
    nothing: dict[str, object] = {"a": [], "b": [], "c": [], "sum": []}
    assert sync(url, tmp_path, declared, "--dry-run") == nothing
    assert sync(url, tmp_path, declared) == nothing
    assert client.vectors.get("a@prod").tags == ("x",)
    assert client.vectors.get("b").status == "retired"
    assert client.vectors.get("c").sha256 == client.vectors.get("gears").sha256


def test_a_sum_that_came_as_a_file_is_the_one_that_is_declared(
    client: Client, url: str, tmp_path: Path
) -> None:
    weights = {"colours": -1.0, "gears": 0.5}
    made = client.vectors.combine("sum", weights)
    client.vectors.upload(client.vectors.download(made), name="copy")
    declared = {"copy": {"source": {"combine": weights}}}
    assert sync(url, tmp_path, declared, "--dry-run") == {"copy": []}
    assert sync(url, tmp_path, declared) == {"copy": []}


def test_one_that_fails_stops_no_other(client: Client, url: str, tmp_path: Path) -> None:
    client.vectors.export("gears", tmp_path / "shared")
    declared = {
        "a": {"source": {"folder": "missing"}},
        "b": {"source": {"server": "http://127.0.0.1:9", "vector": "x"}},
        "c": {"source": {"folder": "shared"}},
    }
    done = sync(url, tmp_path, declared, code=1)
    assert "vector_config.json" in str(done["a"])
    assert "http://127.0.0.1:9" in str(done["b"])
    assert done["c"] == ["store c@1"]


@pytest.mark.parametrize(
    "text",
    [
        "vectors: {a: {source: {file: x}}, b: {source: {file: x}}, a: {source: {file: y}}}",
        '{"vectors": {"a": {"source": {"file": "x"}, "tags": [], "tags": ["y"]}}}',
    ],
)
def test_what_is_declared_twice_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vectors.yaml"
    path.write_text(text)
    refused = runner.invoke(build(), ["sync", str(path), "--url", "http://127.0.0.1:9"])
    assert refused.exit_code == 1
    assert re.search(r"found (a|tags) twice .*line 1", str(refused.exception))


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"source": {}}, r"vectors\.a\.source: wanted one of folder"),
        ({"source": {"folder": "x", "hub": "y"}}, "wanted one of folder"),
        ({"source": {"server": "http://x"}}, "belong together"),
        ({"source": {"folder": "x", "revision": "v1"}}, "revision"),
        ({"source": {"folder": "x"}, "tag": ["y"]}, r"vectors\.a: wanted source, .*, found tag$"),
        ({"source": {"folder": "x"}, "status": "fine"}, r"vectors\.a\.status"),
        (None, r"vectors\.a: wanted source, .*, found nothing$"),
        ("shared/gears", r"vectors\.a: wanted source, .*, found str$"),
        ({"source": "shared/gears"}, r"vectors\.a\.source: wanted folder, .*, found str$"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(entry: object, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        read_declaration({"vectors": {"a": entry}})


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{no: {source: {hub: me/a}}}", r"vectors: wanted text, found False; .* in quotes"),
        ("{2024: {source: {hub: me/a}}}", r"vectors: wanted text, found 2024; .* in quotes"),
        ("{a: {source: {combine: {1: 0.5}}}}", r"vectors\.a\.source\.combine: .*, found 1; "),
        ("{a: {source: {hub: me/a, revision: 1.0}}}", r"\.revision: wanted text, found 1\.0; "),
        ("{a: {source: {hub: me/a}, tags: [no]}}", r"\.tags\.0: wanted text, found False; "),
    ],
)
def test_what_yaml_takes_for_no_text_is_told_of(written: str, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        read_declaration(yaml.safe_load(f"vectors: {written}"))


def test_a_declaration_may_be_made_in_python() -> None:
    made = Declaration(vectors={"a": Entry(source=Source(hub="me/a"))})
    assert made == read_declaration({"vectors": {"a": {"source": {"hub": "me/a"}}}})
