"""What the demo shows at its end: a table, three answers side by side, a plot, a JSON file."""

import json
import textwrap
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from app.cli.console import show_table
from vlibrary_client.terminals import comparison_table, condition_title

NAMES: Final = ("zero_shot", "nearest_copy", "icl", "icl_balanced", "knn_icl", "m2iv")


def write_report(result: dict[str, Any], folder: Path) -> None:
    """Prints the comparison and saves `demo.json` and `demo.png` in the folder."""
    show_table(_comparison(result))
    show_table(_answers(result))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    _plot(result, folder / "demo.png")
    print(f"Saved {folder / 'demo.json'} and {folder / 'demo.png'}")


def _titles(result: dict[str, Any]) -> dict[str, str]:
    return {name: condition_title(name, shots=result["icl_shots"]) for name in NAMES}


def _comparison(result: dict[str, Any]) -> Table:
    speed = result["ms_per_query"]
    conditions = {
        name: {
            **result[name],
            "prompt_tokens": result["prompt_tokens"][name],
            "labels": result["labels"][name],
            **({"ms_per_query": speed[name]} if name in speed else {}),
        }
        for name in NAMES
    }
    return comparison_table(
        {"conditions": conditions, "shots": result["icl_shots"]},
        title=f"easy-VQA, {result['questions']} test questions, exact match",
    )


def _answers(result: dict[str, Any]) -> Table:
    table = Table(title="Side by side")
    rows = result["side_by_side"]
    shown = {name: title for name, title in _titles(result).items() if name in rows[0]}
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
    heights = [100 * result[name]["accuracy"] for name in NAMES]
    below = [100 * (result[name]["accuracy"] - result[name]["low"]) for name in NAMES]
    above = [100 * (result[name]["high"] - result[name]["accuracy"]) for name in NAMES]
    colors = ["#9aa5b1", "#c3b091", "#7ca9d6", "#6c9bd0", "#4f86c6", "#d9822b"]
    labels = [textwrap.fill(title, 14) for title in _titles(result).values()]
    axes.bar(labels, heights, yerr=[below, above], capsize=5, color=colors)
    axes.set_ylabel("accuracy (%), with 95 % interval")
    axes.set_ylim(0, 100)
    axes.set_title(f"easy-VQA, {result['questions']} test questions, pocket LVLM")
    figure.savefig(path, dpi=120)
