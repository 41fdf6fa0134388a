import json
from pathlib import Path
from typing import Any

import pytest

from app.method.experiments.cells import CellResult
from app.method.experiments.runs import PROTOCOL
from app.method.experiments.summary import summarize
from tools.results.page import page

DOCS = Path(__file__).resolve().parents[3] / "docs"


def cell(task: str, method: str, share: int, *, seed: int = 0) -> CellResult:
    scores = tuple(float(n < share) for n in range(100))
    items = 0 if method == "zero_shot" else 100
    return CellResult(task=task, method=method, items=items, seed=seed, scores=scores)


def report(*more: CellResult, **shares: list[int]) -> dict[str, Any]:
    cells = [
        cell(task, method, share)
        for method, found in shares.items()
        for task, share in zip(("first", "second"), found, strict=True)
    ]
    return {
        "backbone": "pocket", "fingerprint": "abc", "suite": "tiny", "suite_digest": "0" * 64,
        "protocol": PROTOCOL, "questions": 100, "seeds": 1,
        "command": "vlibrary evaluate --suite tiny",
        "items": summarize([*cells, *more]),
    }  # fmt: skip


def test_the_first_paragraph_says_who_is_better_than_m2iv() -> None:
    text = page(report(zero_shot=[0, 0], icl_best_16=[40, 40], lora=[99, 90], m2iv=[60, 60]))
    first = text.split("\n\n")[1]
    assert "right in 60.0 %" in first
    assert "beyond the 95 % interval: `lora`" in first
    assert "On 2 tasks some other method has a higher mean: `first`, `second`" in first
    assert "+20.0 points" in text
    assert "the aim of 3.74 points is reached" in text


def test_an_aim_that_is_missed_and_a_task_below_zero_shot_are_said() -> None:
    text = page(report(zero_shot=[80, 0], icl_best_16=[60, 60], m2iv=[30, 90]))
    assert "is not reached" in text
    assert "Tasks on which M2IV is below zero-shot: `first`" in text
    assert "| method | first | second |" in text
    assert "| `icl_best_16` | 60.0* | 60.0 |" in text
    assert "| `m2iv` | 30.0* | 90.0 |" in text
    assert "an asterisk marks" in text


def test_every_draw_has_its_average() -> None:
    again = [cell("first", "m2iv", 20, seed=1), cell("second", "m2iv", 40, seed=1)]
    text = page(report(*again, zero_shot=[10, 20], m2iv=[60, 61]))
    assert "| 60.5, 30.0 |" in text
    assert "| 15.0 |" in text


def test_without_zero_shot_nothing_is_said_to_be_above_it() -> None:
    text = page(report(lora=[50, 50], m2iv=[60, 60]))
    assert "Tasks on which M2IV is below" not in text
    assert "collapsed" not in text
    assert "an asterisk marks" not in text


def test_every_method_that_was_measured_has_its_row() -> None:
    found = {"zero_shot": [1, 2], "hificl": [50, 51], "m2iv:shots=4": [40, 41], "m2iv": [60, 61]}
    text = page(report(**found))
    by_task = text[text.index("By task") :].splitlines()
    assert by_task[4:] == [
        "| `zero_shot` | 1.0 | 2.0 |",
        "| `hificl` | 50.0 | 51.0 |",
        "| `m2iv:shots=4` | 40.0 | 41.0 |",
        "| `m2iv` | 60.0 | 61.0 |",
    ]


def test_supervision_alone_is_told_as_a_share_of_the_gain() -> None:
    found = {"zero_shot": [0, 0], "m2iv": [80, 80]}
    assert "alone reaches 75.0 % of its gain" in page(report(**found, supervision_only=[60, 60]))
    assert "alone reaches 110.0 % of its gain" in page(report(**found, supervision_only=[88, 88]))


def test_without_m2iv_the_page_says_so() -> None:
    assert "M2IV was not measured on every task" in page(report(zero_shot=[1, 2]))


def test_a_table_of_another_protocol_says_so() -> None:
    told = report(zero_shot=[0, 0], m2iv=[80, 80])
    assert "Measured by protocol" not in page(told)
    told["protocol"] = PROTOCOL - 1
    assert f"Measured by protocol {PROTOCOL - 1}; protocol {PROTOCOL} asks" in page(told)


@pytest.mark.parametrize(("name", "title"), [("results", "Results"), ("ablations", "Ablations")])
def test_the_committed_page_is_made_from_the_committed_figures(name: str, title: str) -> None:
    plots = sorted(f"{name}/{found.name}" for found in (DOCS / name).iterdir())
    told = (DOCS / f"{name}.md").read_text()
    assert all(f"({plot})" in told for plot in plots)
    in_order = sorted(plots, key=told.index)
    figures = json.loads((DOCS / f"{name}.json").read_text())
    assert told == page(figures, title=title, plots=in_order)
