"""What the demo shows at its end: a table, three answers side by side, a plot, a JSON file."""

import json
import textwrap
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from app.cli.console import show_table

TITLES: Final[dict[str, str]] = {
    "zero_shot": "zero-shot",
    "nearest_copy": "nearest item's answer",
    "icl": "{shots}-shot ICL",
    "icl_balanced": "8-shot balanced ICL",
    "knn_icl": "{shots}-shot kNN-ICL",
    "m2iv": "M2IV",
}


def write_report(result: dict[str, Any], folder: Path) -> None:
    """Prints the comparison and saves `demo.json` and `demo.png` in the folder."""
    show_table(_comparison(result))
    show_table(_answers(result))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    _plot(result, folder / "demo.png")
    print(f"Saved {folder / 'demo.json'} and {folder / 'demo.png'}")


def titles(result: dict[str, Any]) -> dict[str, str]:
    """What each condition is called."""
    return {name: title.format(shots=result["icl_shots"]) for name, title in TITLES.items()}


def _comparison(result: dict[str, Any]) -> Table:
    table = Table(title=f"easy-VQA, {result['questions']} test questions, exact match")
    table.add_column("", no_wrap=True)
    for heading in ("accuracy", "95 % interval", "labels", "prompt tokens", "ms / question"):
        table.add_column(heading, justify="right")
    for name, title in titles(result).items():
        facts, speed = result[name], result["ms_per_query"]
        table.add_row(
            title,
            f"{facts['accuracy']:.1%}",
            f"{facts['low']:.1%} - {facts['high']:.1%}",
            str(result["labels"][name]),
            f"{result['prompt_tokens'][name]:.0f}",
            # Nobody is asked for what is copied.
            f"{speed[name]:.1f}" if name in speed else "-",
        )
    return table


def _answers(result: dict[str, Any]) -> Table:
    table = Table(title="Side by side")
    rows = result["side_by_side"]
    shown = {name: title for name, title in titles(result).items() if name in rows[0]}
    for heading in ("question", "right", *shown.values()):
        table.add_column(heading)
    for row in rows:
        table.add_row(row["question"], row["answer"], *(row[name] for name in shown))
    return table


def _plot(result: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(TITLES)
    heights = [100 * result[name]["accuracy"] for name in names]
    below = [100 * (result[name]["accuracy"] - result[name]["low"]) for name in names]
    above = [100 * (result[name]["high"] - result[name]["accuracy"]) for name in names]
    colors = ["#9aa5b1", "#c3b091", "#7ca9d6", "#6c9bd0", "#4f86c6", "#d9822b"]
    labels = [textwrap.fill(title, 14) for title in titles(result).values()]
    axes.bar(labels, heights, yerr=[below, above], capsize=5, color=colors)
    axes.set_ylabel("accuracy (%), with 95 % interval")
    axes.set_ylim(0, 100)
    axes.set_title(f"easy-VQA, {result['questions']} test questions, pocket LVLM")
    figure.savefig(path, dpi=120)
