"""`python -m tools.results.repeats`: how far runs of one method differ, as JSON."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from app.method.experiments.cells import CellResult, read_cells
from app.method.experiments.methods import M2IV, SUPERVISION_ONLY

_CELLS: Final = Path(__file__).resolve().parents[2] / "docs" / "cells"
TWICE: Final = _CELLS / "seed-0-twice.json"


def two_names(cells: Iterable[CellResult]) -> dict[str, Any]:
    """M2IV beside `supervision_only`, and how far the two differ where they are one training.

    That is where the held-out items of M2IV chose the labels alone: but for a factor of the loss.
    Accuracies and differences are in %.
    """
    found: dict[tuple[str, int, int], dict[str, CellResult]] = {}
    for one in cells:
        if one.method in {M2IV, SUPERVISION_ONLY}:
            found.setdefault((one.task, one.items, one.seed), {})[one.method] = one
    pairs = [(both[M2IV], both[SUPERVISION_ONLY]) for both in found.values() if len(both) > 1]
    same = [
        100 * (m2iv.accuracy - alone.accuracy)
        for m2iv, alone in pairs
        if m2iv.notes["mimicry_weight"] == 0
    ]
    return {
        "trainings": len(pairs),
        "averages": {
            name: round(100 * statistics.mean(one.accuracy for one in column), 1)
            for name, column in zip((M2IV, SUPERVISION_ONLY), zip(*pairs, strict=True), strict=True)
        },
        "one_training": {
            "trainings": len(same),
            "least": round(min(same), 1),
            "most": round(max(same), 1),
            "mean": round(statistics.mean(same), 2),
            "deviation": round(statistics.pstdev(same), 1),
        },
    }


def measured_again(twice: Mapping[str, Mapping[str, tuple[float, float]]]) -> dict[str, Any]:
    """How far two runs of the same lie apart, in %.

    Args:
        twice: Of each task, the accuracies of both by method, from 0 to 1.
    """
    changes: dict[str, list[float]] = {}
    for methods in twice.values():
        for name, (first, second) in methods.items():
            # Accuracies of 200 questions are 0.5 apart.
            changes.setdefault(name, []).append(round(100 * abs(second - first), 1))
    differing = {name: list(filter(None, found)) for name, found in sorted(changes.items())}
    cells = sum(map(len, changes.values()))
    return {
        "cells": cells,
        "equal": cells - sum(map(len, differing.values())),
        "differing": {
            name: {"cells": len(found), "of": len(changes[name]), "most": max(found)}
            for name, found in differing.items()
            if found
        },
    }


def main(
    *,
    cells: Annotated[Path | None, typer.Option(help="Lines of cells; those that are kept.")] = None,
    twice: Annotated[
        Path, typer.Option(help="Accuracies of seed 0, as two machines found them.")
    ] = TWICE,
) -> None:
    """Print how far runs of one method differ."""
    kept = read_cells(cells or next(_CELLS.glob("pocket-*.jsonl"))).values()
    again = measured_again(json.loads(twice.read_text()))
    print(json.dumps({**two_names(kept), "measured_again": again}, indent=2))


if __name__ == "__main__":
    typer.run(main)
