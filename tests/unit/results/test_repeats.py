import json
from pathlib import Path
from typing import Any

from app.method.experiments.cells import CellResult, read_cells
from tools.results.repeats import repeats

DOCS = Path(__file__).resolve().parents[3] / "docs"


def cell(task: str, method: str, right: int, **notes: Any) -> CellResult:  # noqa: ANN401
    scores = tuple(float(n < right) for n in range(10))
    return CellResult(task=task, method=method, items=100, seed=0, scores=scores, notes=notes)


def test_what_was_measured_again_is_held_against_what_is_published() -> None:
    published = {"lora": {"each": [0.5]}, "live": {"each": [0.3]}, "icv": {"each": [0.1]}}
    cells = [
        cell("a", "lora", 7),
        cell("a", "live", 3),
        *(cell("a", "m2iv", 6, mimicry_weight=0.0), cell("a", "supervision_only", 4)),
        *(cell("b", "m2iv", 9, mimicry_weight=1.0), cell("b", "supervision_only", 5)),
        cell("c", "m2iv", 1, mimicry_weight=0.0),
    ]
    found = repeats(
        {"items": {"100": {"tasks": {"a": published}}}}, {one.key: one for one in cells}
    )
    assert (found["measured_again"], found["equal"]) == (2, 1)
    assert found["differing"] == {"lora": {"cells": 1, "of": 1, "most": 20.0}}
    assert found["averages"] == {"m2iv": 75.0, "supervision_only": 45.0}
    assert (found["tasks_of_both"], found["one_training"]["tasks"]) == (2, 1)
    assert found["one_training"]["most"] == 20.0


def test_the_protocol_tells_what_the_kept_cells_say() -> None:
    (kept,) = (DOCS / "cells").glob("*.jsonl")
    found = repeats(json.loads((DOCS / "results.json").read_text()), read_cells(kept))
    told = " ".join((DOCS / "protocol.md").read_text().split())
    once = found["one_training"]
    for figures in (
        f"Of the {found['measured_again']} published cells of seed 0",
        f"{found['equal']} have the same accuracy",
        f"is right in {found['averages']['supervision_only']} % on average",
        f"M2IV in {found['averages']['m2iv']}",
        f"differ by {once['least']} to {once['most']} points, with a mean of {once['mean']}",
        f"a standard deviation of {once['deviation']}",
    ):
        assert figures in told
