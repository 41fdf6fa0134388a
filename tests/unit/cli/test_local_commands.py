import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from app.cli.app import build
from app.cli.demo.report import write_report
from app.core.errors import (
    ConfigurationError,
    IncompatibleBackboneError,
    InvalidDatasetError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
)
from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.method.evaluation.tasks.loading import load_examples
from tests.fakes.files import official
from tools.pocket.questions import sample_question
from tools.pocket.world import render_scene, sample_scene


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = []
    for index in range(48):
        scene = sample_scene(rng)
        render_scene(scene, rng).save(folder / f"{index}.png")
        question = sample_question(scene, rng)
        lines.append({"image": f"{index}.png", "question": question.text, "answer": question.value})
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def vector(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("vector") / "task.safetensors"
    result = run(
        "train", str(dataset), "--output", str(output), "--shots", "2", "--set", "epochs=1",
        "--set", "held_out_fraction=0.2", "--json",
        "--checkpoint", str(output.with_suffix(".state")),
    )  # fmt: skip
    return output, result


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(), arguments)


def json_of(result: Result) -> dict[str, Any]:
    text = result.stdout
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


@pytest.mark.parametrize(
    "command", [("datasets", "check"), ("evaluate", "--split", "test"), ("evaluate", "cvqa")]
)
def test_where_there_is_no_room_to_read_is_told(
    command: tuple[str, ...], *, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = str(dataset)
    if command[-1] == "cvqa":
        source, command = f"cvqa:{official.cvqa_files(tmp_path)}", ("evaluate", "--split", "test")
    monkeypatch.setattr("app.library.uploads.dataset_conversion.write_rows", full)
    monkeypatch.setattr(os, "write", full)
    result = run(*command, source)
    assert isinstance(result.exception, StorageFullError)
    assert "TMPDIR names another folder" in result.exception.message


def test_local_data_are_read_without_a_home(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert json_of(run("datasets", "check", str(dataset), "--json"))["num_items"] == 48
    monkeypatch.setenv("VLIBRARY_MIN_IMAGE_SIDE", "many")
    assert isinstance(run("datasets", "check", str(dataset)).exception, ConfigurationError)


def test_rows_that_cannot_be_used_are_left_out_on_demand_and_told_of(dataset: Path) -> None:
    rows = dataset.read_text().splitlines()[:6]
    source = dataset.with_name("bad.jsonl")
    source.write_text("\n".join([*rows, *['{"image": "none.png", "question": "?"}'] * 12]))
    asked = ("evaluate", str(source), "--condition", "zero-shot", "--json")
    refused = run(*asked)
    assert isinstance(refused.exception, InvalidDatasetError)
    found = run(*asked, "--skip-bad")
    assert json_of(found)["zero-shot"]["items"] == 6
    assert found.stderr.count("left out, ") == 11
    assert "bad.jsonl: left out, 2 more" in found.stderr
    assert "all of its rows are taken as test, also those that vectors were trained" in found.stderr


def test_what_is_asked_is_said_once(dataset: Path) -> None:
    check = ("datasets", "check", str(dataset), "--map", "question=image")
    twice = run(*check, "--map", "question=answer")
    assert isinstance(twice.exception, InvalidInputError)
    assert "question is mapped twice" in twice.exception.message
    both = run(*check, "--question", "What is this?")
    assert isinstance(both.exception, InvalidInputError)
    assert "one question for all, found both" in both.exception.message


def test_where_a_vector_cannot_be_written_is_told_before_the_training(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    refused = run("train", "no-such-data-set", "--output", str(taken / "task.safetensors"))
    assert isinstance(refused.exception, ConfigurationError)
    assert "cannot write" in refused.exception.message
    assert run("train", "no-such-data-set", "--output", str(tmp_path)).exit_code == 2


def test_a_trained_vector_that_finds_no_room_is_kept_elsewhere(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device: {path}")

    monkeypatch.setattr("vlibrary_client.calls.requests.replace_file", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = run(
        "train", str(dataset), "--output", str(tmp_path / "v.safetensors"), "--limit", "12",
        "--shots", "2", "--set", "max_steps=2", "--set", "trial_steps=0",
        "--set", "checkpoint_every=1", "--checkpoint", str(tmp_path / "state"),
    )  # fmt: skip
    assert isinstance(result.exception, ConfigurationError)
    assert "No space left" in result.exception.message
    (kept,) = tmp_path.glob("vlibrary-*/v.safetensors")
    assert f"the vector is kept in {kept}" in result.exception.message
    assert decode_vector_file(kept.read_bytes())


def test_train_writes_a_vector_file_of_the_pocket(vector: tuple[Path, Result]) -> None:
    path, result = vector
    assert result.exit_code == 0, result.output
    tensors, metadata = decode_vector_file(path.read_bytes())
    assert tensors.attention_vectors.shape == (6, 128)
    assert metadata["method"] == "m2iv"
    report = json_of(result)
    assert report["items"]
    assert report["status"] in {"ready", "unproven", "ineffective", "collapsed"}
    assert report["advice"]
    assert set(report["conditions"]) >= {"m2iv", "zero_shot", "icl", "knn_icl", "majority"}
    assert float(metadata["max_dose"]) >= float(metadata["dose"]) > 0
    assert path.with_suffix(".state").exists()


def test_folders_of_classes_are_checked_with_one_question(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "train" / name / "1.png")
    result = run("datasets", "check", str(tmp_path), "--question", "What is this?", "--json")
    report = json_of(result)
    assert (report["layout"], report["num_answers"]) == ("class folders", 2)
    assert report["splits"] == {"train": 2}


def test_a_setting_that_is_no_pair_is_refused(dataset: Path, tmp_path: Path) -> None:
    result = run("train", str(dataset), "--output", str(tmp_path / "v"), "--set", "epochs")
    assert result.exit_code == 2
    assert "NAME=VALUE" in result.output


def test_evaluate_reports_every_condition(dataset: Path, vector: tuple[Path, Result]) -> None:
    result = run(
        "evaluate", str(dataset), "--vector", str(vector[0]), "--limit", "4", "--shots", "2",
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = json_of(result)
    assert set(rows) == {
        "zero-shot", "icl", "icl-balanced", "knn-icl", "nearest-copy", "m2iv",
    }  # fmt: skip
    assert (rows["zero-shot"]["labels"], rows["icl"]["labels"]) == (0, 2)
    assert rows["nearest-copy"]["labels"] == rows["knn-icl"]["labels"] == 48
    assert rows["nearest-copy"]["prompt_tokens_mean"] == 0
    assert rows["icl"]["prompt_tokens_mean"] > 2 * rows["m2iv"]["prompt_tokens_mean"]
    table = run("evaluate", str(dataset), "--limit", "2", "--condition", "zero-shot")
    assert "zero-shot" in table.stdout


def test_a_benchmark_is_asked_in_its_own_parts_where_none_is_named(tmp_path: Path) -> None:
    folder = official.cvqa_files(tmp_path, count=24)
    counts = {
        part: len(load_examples(f"cvqa:{folder}", split=part)) for part in ("eval", "support")
    }
    found = json_of(
        run("evaluate", f"cvqa:{folder}", "--condition", "nearest-copy", "--shots", "1", "--json")
    )["nearest-copy"]
    assert (found["items"], found["labels"]) == (counts["eval"], counts["support"])
    missing = run("evaluate", f"gqa:{tmp_path}")
    assert isinstance(missing.exception, NotFoundError)
    told = f"wanted testdev_balanced_questions.json in {tmp_path}"
    assert told in missing.exception.message


def test_evaluate_refuses_conditions_it_cannot_measure(dataset: Path) -> None:
    assert run("evaluate", str(dataset), "--condition", "m2iv").exit_code == 2
    assert run("evaluate", str(dataset), "--condition", "magic").exit_code == 2


def test_a_vector_of_another_backbone_is_refused(
    dataset: Path, vector: tuple[Path, Result], tmp_path: Path
) -> None:
    tensors, metadata = decode_vector_file(vector[0].read_bytes())
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(encode_vector_file(tensors, metadata={**metadata, "backbone": "0" * 64}))
    result = run("evaluate", str(dataset), "--vector", str(foreign), "--condition", "m2iv")
    assert isinstance(result.exception, IncompatibleBackboneError)
    # Nothing that was measured before is lost by it.
    asked = ("evaluate", str(dataset), "--vector", str(foreign), "--limit", "2", "--condition")
    both = run(*asked, "zero-shot", "--condition", "m2iv", "--json")
    assert both.exit_code == 1
    assert json_of(both)["zero-shot"]["items"] == 2
    assert list(json_of(both)["m2iv"]) == ["refused"]
    assert "vlibrary: m2iv: " in both.stderr


def test_a_vector_may_be_the_folder_of_an_export(
    dataset: Path, vector: tuple[Path, Result], tmp_path: Path
) -> None:
    (tmp_path / "vector.safetensors").write_bytes(vector[0].read_bytes())
    asked = ("evaluate", str(dataset), "--limit", "2", "--condition", "m2iv", "--json")
    assert "m2iv" in json_of(run(*asked, "--vector", str(tmp_path)))
    assert run(*asked, "--vector", str(tmp_path / "none")).exit_code == 2


def test_a_data_set_beside_a_suite_is_refused(dataset: Path) -> None:
    both = run("evaluate", str(dataset), "--suite", "development")
    assert both.exit_code == 2
    assert "wanted a data set or --suite, found both" in both.output


def test_every_command_explains_itself() -> None:
    listed = run("--help").stdout
    for name in ("serve", "worker", "api", "doctor", "train", "evaluate", "demo"):
        assert name in listed
        assert run(name, "--help").exit_code == 0


def test_the_report_prints_and_saves_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    names = ("zero_shot", "nearest_copy", "icl", "icl_balanced", "knn_icl", "m2iv")
    accuracy = dict(zip(names, (0.5, 0.3, 0.6, 0.62, 0.61, 0.9), strict=True))
    asked = [name for name in names if name != "nearest_copy"]
    result = {
        "questions": 10,
        **{name: {"accuracy": accuracy[name], "low": 0.1, "high": 0.95} for name in names},
        "icl_shots": 16,
        "ms_per_query": dict.fromkeys(asked, 2.0),
        "labels": dict.fromkeys(names, 3000),
        "prompt_tokens": dict.fromkeys(names, 17.0),
        "side_by_side": [{"question": "q?", "answer": "a", **dict.fromkeys(asked, "b")}],
    }
    write_report(result, tmp_path)
    assert json.loads((tmp_path / "demo.json").read_text()) == result
    assert (tmp_path / "demo.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "16-shot ICL" in printed
    assert "90.0%" in printed
    assert "8-shot balanced ICL" in printed
    assert "nearest item's answer" in printed
    assert "3000" in printed


def test_vl_icl_is_asked_alone_and_with_each_questions_own_demonstrations(tmp_path: Path) -> None:
    official.vl_icl_files(tmp_path)
    task = f"vl-icl-matching_mi:{tmp_path}"
    found = json_of(run("evaluate", task, "--shots", "2", "--json"))
    assert set(found) == {"zero-shot", "icl"}
    alone, shown = found["zero-shot"], found["icl"]
    assert (alone["scorer"], alone["items"], alone["labels"]) == ("vl-icl-yes-no", 1, 0)
    # Two matches and two pairs of others, of two pictures each.
    assert (shown["shots"], shown["labels"]) == (2, 4)
    assert shown["prompt_tokens_mean"] > 4 * alone["prompt_tokens_mean"]
    refused = run("evaluate", task, "--condition", "knn-icl")
    assert refused.exit_code == 2
    assert "wanted zero-shot, icl, m2iv" in refused.output
    assert run("evaluate", f"vl-icl-cobsat:{tmp_path}").exit_code == 1
