"""Tables of many cells: means, paired intervals, costs, and which methods collapse.

Intervals resample seeds and test items of every task, the same for all methods, so that differences
are paired. Nothing is rounded here: whoever shows a figure rounds it, once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from jaxtyping import Float

from app.core.errors import InvalidInputError
from app.method.experiments.cells import CellResult
from app.method.experiments.methods import ALONE, M2IV, SUPERVISION_ONLY

ZERO_SHOT: Final = "zero_shot"
REPLICATES: Final = 2000
_BOUNDS: Final = (2.5, 97.5)
_COSTS: Final = ("parameters", "train_seconds", "prompt_tokens", "ms_per_query")


Means = Mapping[str, Mapping[str, Float[np.ndarray, " replicates"]]]
"""By task and method; the first replicate is the plain mean."""
Cells = Mapping[str, Mapping[str, Sequence[CellResult]]]
"""Of one number of labelled items, by task and method."""


def summarize(results: Sequence[CellResult]) -> dict[str, Any]:
    """The tables of a run, by number of labelled items.

    Returns:
        For each number of items: `average`, `methods`, `tasks`, `gains` of M2IV over each other
        method, and `mimicry_share`, the part of M2IV's gain over zero-shot that supervision alone
        does not reach.

    Raises:
        InvalidInputError: There is no cell.
    """
    if not results:
        raise InvalidInputError("Nothing to summarize: wanted measured cells, found none")
    sizes = sorted({result.items for result in results if result.method not in ALONE}) or [0]
    return {str(size): _table(results, size=size) for size in sizes}


def _table(results: Sequence[CellResult], *, size: int) -> dict[str, Any]:
    chosen = [one for one in results if one.items == size or one.method in ALONE]
    cells = _by_method(chosen)
    means = _resample(cells)
    tasks = list(cells)
    everywhere = [
        method
        for method in dict.fromkeys(one.method for one in chosen)
        if all(method in found for found in means.values())
    ]
    averages = {
        method: np.mean([means[task][method] for task in tasks], axis=0) for method in everywhere
    }
    table: dict[str, Any] = {
        "average": {method: float(found[0]) for method, found in averages.items()},
        "methods": {
            method: {**_interval(found), **_costs(cells, means, method)}
            for method, found in averages.items()
        },
        "tasks": {task: _task(cells[task], means[task]) for task in tasks},
    }
    if M2IV in averages:
        table["gains"] = {
            method: _interval(averages[M2IV] - found)
            for method, found in averages.items()
            if method != M2IV
        }
        table["mimicry_share"] = _mimicry_share(averages)
    return table


def _by_method(cells: Sequence[CellResult]) -> Cells:
    grouped: dict[str, dict[str, list[CellResult]]] = {}
    for cell in sorted(cells, key=lambda cell: cell.seed):
        grouped.setdefault(cell.task, {}).setdefault(cell.method, []).append(cell)
    return grouped


def _resample(cells: Cells) -> Means:
    rng = np.random.default_rng(0)
    means: dict[str, dict[str, np.ndarray]] = {}
    for task, methods in cells.items():
        scores = {
            method: np.array([cell.scores for cell in found])
            for method, found in methods.items()
            if all(cell.scores for cell in found)
        }
        seeds, questions = max((rows.shape for rows in scores.values()), default=(1, 1))
        weights = (_weights(rng, seeds), _weights(rng, questions))
        means[task] = {
            # What no seed changes counts the same under every seed.
            method: _weighted(
                np.broadcast_to(rows, (seeds, questions)) if len(rows) == 1 else rows, weights
            )
            for method, rows in scores.items()
            if len(rows) in {1, seeds}
        }
    return means


def _weights(rng: np.random.Generator, count: int) -> Float[np.ndarray, "replicates count"]:
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=REPLICATES) / count
    return np.concatenate([np.full((1, count), 1 / count), drawn])


def _weighted(
    scores: Float[np.ndarray, "seeds questions"], weights: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, " replicates"]:
    found: np.ndarray = np.einsum("rs,sq,rq->r", weights[0], scores, weights[1], optimize=True)
    return found


def _interval(found: Float[np.ndarray, " replicates"]) -> dict[str, float]:
    low, high = np.percentile(found[1:], _BOUNDS)
    return {"mean": float(found[0]), "low": float(low), "high": float(high)}


def _costs(cells: Cells, means: Means, method: str) -> dict[str, Any]:
    own = [cell for methods in cells.values() for cell in methods.get(method, [])]
    costs = {name: float(np.mean([getattr(cell, name) for cell in own])) for name in _COSTS}
    collapsed = [task for task, found in means.items() if _is_collapsed(found, method)]
    return {**costs, "kind": own[0].kind, "collapsed": collapsed, **_norms(own)}


def _norms(cells: Sequence[CellResult]) -> dict[str, Any]:
    """The mean length of a shift by branch and layer, where cells tell."""
    found = [cast("dict[str, list[float]]", c.notes["norms"]) for c in cells if "norms" in c.notes]
    if not found:
        return {}
    return {
        "norms": {
            branch: np.mean([one[branch] for one in found], axis=0).tolist() for branch in found[0]
        }
    }


def _is_collapsed(means: Mapping[str, np.ndarray], method: str) -> bool:
    """Whether a method is below zero-shot by more than chance."""
    if ZERO_SHOT not in means or method == ZERO_SHOT:
        return False
    return _interval(means[method] - means[ZERO_SHOT])["high"] < 0


def _task(
    cells: Mapping[str, Sequence[CellResult]], means: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for method, own in cells.items():
        if method not in means:
            refused = next((cell.refused for cell in own if cell.refused), None)
            rows[method] = {"refused": refused or "not measured with every seed"}
            continue
        rows[method] = {
            **_interval(means[method]),
            "each": [cell.accuracy for cell in own],
            "collapsed": _is_collapsed(means, method),
        }
    return rows


def _mimicry_share(averages: Mapping[str, np.ndarray]) -> float | None:
    if SUPERVISION_ONLY not in averages or ZERO_SHOT not in averages:
        return None
    gain = float(averages[M2IV][0] - averages[ZERO_SHOT][0])
    if gain <= 0:
        return None
    return float(averages[M2IV][0] - averages[SUPERVISION_ONLY][0]) / gain
