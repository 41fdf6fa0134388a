import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner, Result

from app.cli.app import build
from app.core.errors import ConfigurationError, InvalidInputError, NotFoundError
from tests.fakes.checkpoints.families import CHECKPOINTS
from tests.fakes.suites import tiny_suite


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["evaluate", *arguments])


def asked(folder: Path, *others: str) -> Result:
    return run(
        "--suite", str(folder), "--items", "8", "--seeds", "1", "--questions", "4",
        "--shots", "1,2", "--output", str(folder / "out"), *others,
    )  # fmt: skip


def test_a_suite_gives_one_report_that_a_second_run_reads_back(tmp_path: Path) -> None:
    tiny_suite(tmp_path, "one", "two")
    methods = ("--methods", "zero_shot,icl_best,nearest_copy", "--json")
    first, second = (asked(tmp_path, *methods) for _ in range(2))
    assert first.exit_code == 0, first.output
    reports = [json.loads(result.stdout) for result in (first, second)]
    assert reports[0]["items"] == reports[1]["items"]
    average = reports[0]["items"]["8"]["average"]
    assert set(average) == {"zero_shot", "icl_best", "nearest_copy"}
    assert reports[0]["tasks"] == ["one", "two"]
    assert "--methods zero_shot,icl_best,nearest_copy" in reports[0]["command"]
    assert len(Path(reports[0]["cells"]).read_text().splitlines()) == 6
    machine = reports[0]["machine"]
    assert (machine["device"], machine["dtype"]) == ("cpu", "float32")
    kept = json.loads(asked(tmp_path, *methods, "--kept-only", "--seeds", "2").stdout)
    assert kept["items"]["8"]["average"] == average
    # It tells of the draws that there are, and of no machine, which may not be this one.
    assert kept["seeds"] == 1
    assert not {"machine", "seconds"} & kept.keys()


def test_where_cells_cannot_be_kept_is_told_before_any_is_measured(tmp_path: Path) -> None:
    tiny_suite(tmp_path, "one")
    (tmp_path / "taken").touch()
    refused = asked(tmp_path, "--suite", "no-such-suite", "--output", str(tmp_path / "taken"))
    assert isinstance(refused.exception, ConfigurationError)
    assert "cannot write" in refused.exception.message
    kept = asked(tmp_path, "--kept-only", "--output", str(tmp_path / "taken"))
    assert isinstance(kept.exception, InvalidInputError)


def test_a_suite_prints_a_table_of_one_task(tmp_path: Path) -> None:
    tiny_suite(tmp_path, "one", "two")
    found = asked(tmp_path, "--methods", "zero_shot,nearest_copy", "--task", "two")
    assert "1 tasks, 8 labelled items" in found.stdout


def test_a_suite_runs_in_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    tiny_suite(tmp_path, "one")
    place = ("--device", "cpu", "--dtype", "bfloat16")
    report = json.loads(asked(tmp_path, "--methods", "zero_shot,icl_2", *place, "--json").stdout)
    assert report["machine"]["dtype"] == "bfloat16"
    assert " --device cpu --dtype bfloat16 --methods" in report["command"]


def test_a_suite_takes_any_checkpoint_that_loads(tmp_path: Path) -> None:
    parts = CHECKPOINTS["qwen2_vl"]()
    make: Any = AutoModelForImageTextToText.from_config
    place = tmp_path / "qwen"
    make(parts.config).save_pretrained(place)
    parts.processor.save_pretrained(place)
    tiny_suite(tmp_path, "one")
    methods = "zero_shot,icl_2,knn_icl_2,icv,prompt"
    words = ("--backbone", str(place), "--dtype", "bfloat16", "--methods", methods, "--json")
    report = json.loads(asked(tmp_path, *words).stdout)
    assert set(report["average"]) == {"zero_shot", "icl_2", "knn_icl_2", "icv"}
    rows = report["items"]["8"]["tasks"]["one"]
    assert "cannot be prompt-tuned" in rows["prompt"]["refused"]
    costs = report["items"]["8"]["methods"]
    assert costs["icl_2"]["prompt_tokens"] > costs["zero_shot"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--items", "many"), "wanted whole numbers with commas between, found many"),
        (("--methods", "magic"), "found magic"),
        (("--task", "three"), "wanted one, found three"),
    ],
)
def test_what_a_suite_cannot_do_is_said(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    found = asked(tiny_suite(tmp_path, "one"), "--methods", "zero_shot", *arguments)
    assert found.exit_code != 0
    said = found.output + str(found.exception)
    assert message in " ".join(said.replace("│", " ").split())
    assert found.exception is None or isinstance(
        found.exception, (SystemExit, InvalidInputError, NotFoundError)
    )


def test_without_a_suite_a_data_set_and_whole_shots_are_wanted() -> None:
    assert "wanted a data set, or --suite" in run().output
    assert "wanted a whole number from 1 to 64, found 4,8" in " ".join(
        run("easy-vqa", "--limit", "2", "--shots", "4,8").output.replace("│", " ").split()
    )
