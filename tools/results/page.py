"""The page of results: every figure and every sentence is made from what a run printed.

Knows the printed object; knows no backbone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from app.method.experiments.runs import PROTOCOL

M2IV: Final = "m2iv"
TITLE: Final = "Results"
_AIM_POINTS: Final = 3.74
_OPPONENT: Final = "icl_best_16"
_ZERO_SHOT: Final = "zero_shot"


def main_size(report: Mapping[str, Any]) -> str:
    """The number of labelled items that the first paragraph and the pictures speak of."""
    tables: Mapping[str, Any] = report["items"]
    return "100" if "100" in tables else max(tables, key=int)


def page(report: Mapping[str, Any], *, title: str = TITLE, plots: Sequence[str] = ()) -> str:
    """The page in Markdown.

    Args:
        report: What `vlibrary evaluate --suite NAME --json` printed.
        title: Its heading.
        plots: Where the pictures lie, as the page links to them.
    """
    tables: Mapping[str, Mapping[str, Any]] = report["items"]
    main = main_size(report)
    lines = [f"# {title}", "", *_first(tables[main], main), ""]
    if report["protocol"] != PROTOCOL:
        changed = "[what was changed](protocol.md#what-was-changed-after-results-were-seen)"
        told = f"Measured by protocol {report['protocol']}; protocol {PROTOCOL} asks otherwise"
        lines += [f"**{told}:** {changed}.", ""]
    lines += _conditions(report)
    for plot in plots:
        lines += ["", f"![{Path(plot).stem}]({plot})"]
    for size, table in tables.items():
        lines += ["", f"## With {size} labelled items", "", *_methods(table)]
        lines += ["", *_gains(table), "", *_tasks(table)]
    return "\n".join(lines) + "\n"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(gain: Mapping[str, float]) -> str:
    bounds = f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}"
    return f"{100 * gain['mean']:+.1f} points ({bounds})"


def _joined(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "none"


def _first(table: Mapping[str, Any], size: str) -> Iterator[str]:
    """Where M2IV does not win stands before everything else."""
    average: Mapping[str, float] = table["average"]
    if M2IV not in average:
        yield f"M2IV was not measured on every task with {size} labelled items."
        return
    gains = table["gains"]
    ahead = [name for name, gain in gains.items() if gain["high"] < 0]
    level = [name for name, gain in gains.items() if gain["low"] <= 0 <= gain["high"]]
    lost = [
        task
        for task, rows in table["tasks"].items()
        if any(
            row.get("mean", 0.0) > rows[M2IV]["mean"] for name, row in rows.items() if name != M2IV
        )
    ]
    yield (
        f"With {size} labelled items M2IV is right in {_percent(average[M2IV])} % on average over "
        f"{len(table['tasks'])} tasks. Better than it, beyond the 95 % interval: {_joined(ahead)}; "
        f"not told apart from it: {_joined(level)}. On {len(lost)} tasks some other method has a "
        f"higher mean: {_joined(lost)}."
    )
    if _OPPONENT in gains:
        gain = gains[_OPPONENT]
        reached = "reached" if 100 * gain["mean"] >= _AIM_POINTS else "not reached"
        yield ""
        yield (
            f"Against the best in-context learning of at most 16 shots: {_points(gain)}; the aim "
            f"of {_AIM_POINTS} points is {reached}."
        )
    if _ZERO_SHOT not in average:
        return
    collapsed = table["methods"][M2IV]["collapsed"]
    share = table["mimicry_share"]
    yield ""
    yield f"Tasks on which M2IV is below zero-shot: {_joined(collapsed)}." + (
        ""
        if share is None
        else f" Supervision alone reaches {_percent(1 - share)} % of its gain over zero-shot."
    )


def _conditions(report: Mapping[str, Any]) -> list[str]:
    machine = ", ".join(f"{name} {value}" for name, value in report.get("machine", {}).items())
    told = (
        f"Backbone `{report['backbone']}` ({report['fingerprint']}), suite `{report['suite']}` "
        f"({report['suite_digest'][:12]}), {report['questions']} questions a task, "
        f"draws of the items (seeds): {report['seeds']}; how it was measured: "
        f"[protocol](protocol.md). {machine}"
    )
    return [
        told.rstrip(),
        "",
        "```",
        report["command"],
        "```",
    ]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _methods(table: Mapping[str, Any]) -> Iterator[str]:
    compared = _ZERO_SHOT in table["methods"]
    heads = (
        "method", "accuracy %", "95 %", "by draw", "parameters", "training s", "prompt tokens",
        "ms a query", *(["collapsed on"] if compared else []),
    )  # fmt: skip
    yield _row(*heads)
    yield _row("---", *["---:"] * (len(heads) - 1))
    rows = sorted(table["methods"].items(), key=lambda pair: -pair[1]["mean"])
    for name, row in rows:
        yield _row(
            f"`{name}`",
            _percent(row["mean"]),
            f"{_percent(row['low'])} - {_percent(row['high'])}",
            ", ".join(_percent(mean) for mean in _by_draw(table["tasks"].values(), name)),
            f"{row['parameters']:,.0f}",
            f"{row['train_seconds']:.1f}",
            f"{row['prompt_tokens']:.0f}",
            f"{row['ms_per_query']:.1f}",
            *([str(len(row["collapsed"]))] if compared else []),
        )


def _by_draw(tasks: Iterable[Mapping[str, Any]], method: str) -> Iterator[float]:
    """The average over tasks with each draw of the labelled items."""
    return map(fmean, zip(*(rows[method]["each"] for rows in tasks), strict=False))


def _gains(table: Mapping[str, Any]) -> Iterator[str]:
    gains = table.get("gains", {})
    if not gains:
        return
    yield "M2IV minus each, on the same items and seeds:"
    yield ""
    yield _row("method", "points", "95 %")
    yield _row("---", "---:", "---:")
    for name, gain in sorted(gains.items(), key=lambda pair: pair[1]["mean"]):
        bounds = f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}"
        yield _row(f"`{name}`", f"{100 * gain['mean']:+.1f}", bounds)


def _tasks(table: Mapping[str, Any]) -> Iterator[str]:
    tasks: Mapping[str, Mapping[str, Any]] = table["tasks"]
    names = dict.fromkeys(name for rows in tasks.values() for name in rows)
    marked = "; an asterisk marks what is below zero-shot" if _ZERO_SHOT in names else ""
    yield f"By task, accuracy in %{marked}:"
    yield ""
    yield _row("method", *tasks)
    yield _row("---", *["---:"] * len(tasks))
    for name in names:
        yield _row(f"`{name}`", *(_cell(rows.get(name)) for rows in tasks.values()))


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or "refused" in row:
        return "-"
    return _percent(row["mean"]) + ("*" if row["collapsed"] else "")
