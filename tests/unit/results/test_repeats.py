import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.method.experiments.cells import CellResult, read_cells
from tools.results.repeats import TWICE, measured_again, two_names

DOCS = Path(__file__).resolve().parents[3] / "docs"


def cell(task: str, method: str, right: int, *, seed: int = 0, **notes: Any) -> CellResult:  # noqa: ANN401
    scores = tuple(float(n < right) for n in range(10))
    return CellResult(task=task, method=method, items=100, seed=seed, scores=scores, notes=notes)


def test_two_names_of_one_training_are_told_apart_from_two_trainings() -> None:
    found = two_names([
        *(cell("a", "m2iv", 6, mimicry_weight=0.0), cell("a", "supervision_only", 4)),
        cell("a", "m2iv", 5, seed=1, mimicry_weight=0.0),
        cell("a", "supervision_only", 6, seed=1),
        *(cell("b", "m2iv", 10, mimicry_weight=1.0), cell("b", "supervision_only", 5)),
        *(cell("c", "m2iv", 1, mimicry_weight=0.0), cell("c", "lora", 9)),
        # With another number of items it is another training, which has no pair here.
        replace(cell("a", "m2iv", 9, mimicry_weight=0.0), items=32),
    ])  # fmt: skip
    assert found["trainings"] == 3
    assert found["averages"] == {"m2iv": 70.0, "supervision_only": 50.0}
    assert found["one_training"] == {
        "trainings": 2, "least": -10.0, "most": 20.0, "mean": 5.0, "deviation": 15.0
    }  # fmt: skip


def test_two_runs_of_the_same_are_held_against_each_other() -> None:
    found = measured_again({
        "a": {"lora": (0.5, 0.7), "live": (0.3, 0.3)},
        "b": {"lora": (0.1, 0.095), "icv": (0.1, 0.1)},
    })  # fmt: skip
    assert (found["cells"], found["equal"]) == (4, 2)
    assert found["differing"] == {"lora": {"cells": 2, "of": 2, "most": 20.0}}


def test_the_protocol_tells_what_the_kept_cells_say() -> None:
    (kept,) = (DOCS / "cells").glob("pocket-*.jsonl")
    cells = read_cells(kept).values()
    found = two_names(cells)
    again = measured_again(json.loads(TWICE.read_text()))
    told = " ".join((DOCS / "protocol.md").read_text().split())
    once = found["one_training"]
    for figures in (
        f"Of {again['cells']}, {again['equal']} have the same accuracy",
        f"is right in {found['averages']['supervision_only']} % on average",
        f"M2IV in {found['averages']['m2iv']}",
        f"In {once['trainings']} of these {found['trainings']} trainings",
        f"differ by {once['least']} to {once['most']} points, with a mean of {once['mean']}",
        f"a standard deviation of {once['deviation']}",
    ):
        assert figures in told
