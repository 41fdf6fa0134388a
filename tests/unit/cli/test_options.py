"""What is given and would be passed over is refused, before anything is loaded."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.app import build


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(), arguments)


@pytest.mark.parametrize("setting", ["shots=4", "seed=1"])
def test_what_has_an_option_is_no_setting_as_well(tmp_path: Path, setting: str) -> None:
    result = run("train", "nowhere", "--output", str(tmp_path / "v"), "--set", setting)
    assert result.exit_code == 2
    assert f"--{setting.partition('=')[0]}" in result.output


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("nowhere", "--items", "50"), "--items is for --suite"),
        (("nowhere", "--kept-only"), "--kept-only is for --suite"),
        (("--suite", "nowhere", "--limit", "5"), "--limit is for a data set"),
        (("--suite", "nowhere", "--map", "a=b"), "--map is for a data set"),
        (("nowhere", "--strength", "2"), "--strength is for --vector"),
        (("vl-icl-open_mi:nowhere", "--support", "other"), "--support is not for VL-ICL"),
        (("easy-vqa", "--question", "what?"), "--question is not for easy-vqa"),
        (("gqa:nowhere", "--support", "easy-vqa", "--map", "question=q"), "--map is not for gqa"),
        (("nowhere", "--support", "other", "--condition", "zero-shot"), "--support is for"),
        (("nowhere", "--vector", "pyproject.toml", "--condition", "icl"), "--vector is for m2iv"),
    ],
)
def test_options_that_would_say_nothing_are_refused(asked: tuple[str, ...], told: str) -> None:
    result = run("evaluate", *asked)
    assert result.exit_code == 2
    assert told in result.output


def test_a_layout_that_is_known_for_good_is_not_trained_on_by_columns(tmp_path: Path) -> None:
    result = run("train", "easy-vqa", "--output", str(tmp_path / "v"), "--skip-bad")
    assert result.exit_code == 2
    assert "--skip-bad is not for easy-vqa" in result.output


def test_what_is_not_measured_takes_no_items() -> None:
    result = run("export", "gears", "--to", "shared", "--items", "5")
    assert result.exit_code == 2
    assert "--items is for --measure" in result.output


NOWHERE = ("--url", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("steer", "q", "--vector", "x=nan"), "-10 to 10"),
        (("steer", "q", "--vector", "x=much"), "-10 to 10"),
        (("steer", "q", "--vector", "x=-10.5"), "-10 to 10"),
        (("steer", "q", "--temperature", "inf"), "10"),
        (("vectors", "combine", "sum", "x=inf", "y=1"), "-100 to 100"),
        (("vectors", "combine", "sum", "x=", "y=1"), "-100 to 100"),
        (("jobs", "train", "x", "y", "--set", "vector_learning_rate=NaN"), "equal to 10"),
        (("jobs", "train", "x", "y", "--set", "temperature=1e999"), "equal to 100"),
        (("jobs", "train", "x", "y", "--set", "epoch=1"), "epochs?"),
        (("jobs", "train", "x", "y", "--set", "shots=4"), "--shots"),
        (("jobs", "train", "x", "y", "--set", "split=train"), "split"),
        (("train", "x", "--output", "y", "--set", "epochs=0"), "equal to 1"),
        (("jobs", "combine", "x", "y", "--dataset", "d", "--rule", "median"), "learned"),
        (("jobs", "train", "x", "d", "--report-to", "aim"), "tensorboard"),
        (("jobs", "watch", "x", "--report-to", "aim"), "tensorboard"),
        (("vectors", "status", "redy", "x"), "retired"),
        (("vectors", "list", "--status", "redy"), "retired"),
        (("worker", "--role", "trian"), "both"),
    ],
)
def test_what_cannot_be_given_is_refused_with_what_can_before_a_server_is_asked(
    asked: tuple[str, ...], told: str
) -> None:
    result = run(*asked, *(() if asked[0] in {"train", "worker"} else NOWHERE))
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())


def test_a_strength_within_bounds_is_sent() -> None:
    assert "cannot talk to" in run("steer", "q", "--vector", "x=-10", *NOWHERE).output
    assert "cannot talk to" in run("vectors", "combine", "s", "x=-1", "y=2", *NOWHERE).output


@pytest.mark.parametrize(
    "asked",
    [
        ("datasets", "check", ""),
        ("datasets", "upload", "", "--name", "x", *NOWHERE),
        ("evaluate", "", "--condition", "zero-shot"),
    ],
)
def test_a_variable_of_a_shell_that_is_empty_is_not_the_folder_that_it_is_in(
    asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    monkeypatch.chdir(tmp_path)
    result = run(*asked, "--text-only")
    assert result.exit_code == 1
    assert "found an empty name" in (result.output or "") + str(result.exception)
