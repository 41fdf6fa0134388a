"""`python -m tools.results.repeats`: how far runs of one method differ, as JSON."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.method.experiments.cells import CellResult, read_cells
from app.method.experiments.methods import M2IV, SUPERVISION_ONLY

_DOCS = Path(__file__).resolve().parents[2] / "docs"


def repeats(report: Mapping[str, Any], cells: Mapping[Any, CellResult]) -> dict[str, Any]:
    """Published figures beside cells that were measured again, and two names of one training.

    Where the held-out items of M2IV chose the labels alone, it is `supervision_only` but for a
    factor of the loss. Accuracies and differences are in %.
    """
    measured = {
        (one.task, one.method): 100 * statistics.mean(one.scores)
        for one in cells.values()
        if one.seed == 0 and one.scores
    }
    published = {
        (task, method): 100 * figures["each"][0]
        for task, methods in report["items"]["100"]["tasks"].items()
        for method, figures in methods.items()
    }
    again = measured.keys() & published.keys()
    changes: dict[str, list[float]] = {}
    for key in again:
        # Accuracies of 200 questions are 0.5 apart.
        change = round(abs(measured[key] - published[key]), 1)
        changes.setdefault(key[1], []).append(change)
    differing = {name: [one for one in found if one] for name, found in changes.items()}
    both = {one.task: one for one in cells.values() if one.method == M2IV and one.seed == 0}
    both = {task: one for task, one in both.items() if (task, SUPERVISION_ONLY) in measured}
    same = [
        measured[task, M2IV] - measured[task, SUPERVISION_ONLY]
        for task, one in both.items()
        if one.notes["mimicry_weight"] == 0
    ]
    return {
        "measured_again": len(again),
        "equal": len(again) - sum(map(len, differing.values())),
        "differing": {
            name: {"cells": len(found), "of": len(changes[name]), "most": max(found)}
            for name, found in sorted(differing.items())
            if found
        },
        "averages": {
            name: round(statistics.mean(measured[task, name] for task in both), 1)
            for name in (M2IV, SUPERVISION_ONLY)
        },
        "tasks_of_both": len(both),
        "one_training": {
            "tasks": len(same),
            "least": round(min(same), 1),
            "most": round(max(same), 1),
            "mean": round(statistics.mean(same), 2),
            "deviation": round(statistics.pstdev(same), 1),
        },
    }


def main(
    *,
    source: Annotated[Path, typer.Option(help="What is published.")] = _DOCS / "results.json",
    cells: Annotated[Path | None, typer.Option(help="Lines of cells; those that are kept.")] = None,
) -> None:
    """Print how far runs of one method differ."""
    kept = cells or next((_DOCS / "cells").glob("*.jsonl"))
    print(json.dumps(repeats(json.loads(source.read_text()), read_cells(kept)), indent=2))


if __name__ == "__main__":
    typer.run(main)
