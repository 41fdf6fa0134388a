"""What the demo shows at its end: a table, three answers side by side, a plot, a JSON file."""

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

TITLES: Final = {
    "zero_shot": "zero-shot",
    "icl": "{shots}-shot ICL",
    "knn_icl": "{shots}-shot kNN-ICL",
    "m2iv": "M2IV",
}


def write_report(result: dict[str, Any], folder: Path) -> None:
    """Prints the comparison and saves `demo.json` and `demo.png` in the folder."""
    console = Console()
    console.print(_comparison(result))
    console.print(_answers(result))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    _plot(result, folder / "demo.png")
    console.print(f"Saved {folder / 'demo.json'} and {folder / 'demo.png'}")


def titles(result: dict[str, Any]) -> dict[str, str]:
    """What each condition is called."""
    return {name: title.format(shots=result["icl_shots"]) for name, title in TITLES.items()}


def _comparison(result: dict[str, Any]) -> Table:
    table = Table(title=f"easy-VQA, {result['questions']} test questions, exact match")
    table.add_column("")
    for heading in ("accuracy", "95 % interval", "prompt tokens", "ms / question"):
        table.add_column(heading, justify="right")
    for name, title in titles(result).items():
        facts = result[name]
        table.add_row(
            title,
            f"{facts['accuracy']:.1%}",
            f"{facts['low']:.1%} - {facts['high']:.1%}",
            f"{result['prompt_tokens'][name]:.0f}",
            f"{result['ms_per_query'][name]:.1f}",
        )
    return table


def _answers(result: dict[str, Any]) -> Table:
    table = Table(title="Side by side")
    for heading in ("question", "right", *titles(result).values()):
        table.add_column(heading)
    for row in result["side_by_side"]:
        table.add_row(row["question"], row["answer"], *(row[name] for name in TITLES))
    return table


def _plot(result: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(TITLES)
    heights = [100 * result[name]["accuracy"] for name in names]
    below = [100 * (result[name]["accuracy"] - result[name]["low"]) for name in names]
    above = [100 * (result[name]["high"] - result[name]["accuracy"]) for name in names]
    colors = ["#9aa5b1", "#7ca9d6", "#4f86c6", "#d9822b"]
    axes.bar(list(titles(result).values()), heights, yerr=[below, above], capsize=5, color=colors)
    axes.set_ylabel("accuracy (%), with 95 % interval")
    axes.set_ylim(0, 100)
    axes.set_title(f"easy-VQA, {result['questions']} test questions, pocket LVLM")
    figure.savefig(path, dpi=120)
