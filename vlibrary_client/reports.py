"""Shows how a training ended: every way of answering side by side, with what each one costs."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_TITLES = {
    "m2iv": "M2IV",
    "zero_shot": "zero-shot",
    "icl": "{shots}-shot ICL",
    "icl_balanced": "8-shot ICL, balanced answers",
    "knn_icl": "{shots}-shot kNN-ICL (picture and question)",
    "nearest_copy": "the nearest item's answer",
    "majority": "always the most usual answer",
}


def print_report(report: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Prints the comparison, what it says of the vector, and what to do.

    Args:
        report: A job's `report`.
        console: Where to; standard error unless given.
    """
    out = console or Console(stderr=True)
    if report["conditions"]:
        out.print(comparison_table(report))
    out.print(f"{report['status']}: {report['reason']}", highlight=False)
    out.print(report["advice"], highlight=False)


def comparison_table(report: Mapping[str, Any]) -> Table:
    """A table for the terminal.

    Args:
        report: A job's `report`, with its `conditions`.
    """
    table = Table(title=f"{report['items']} held-out items, exact answer")
    table.add_column("")
    for heading in ("accuracy", "95 % interval", "prompt tokens", "labels"):
        table.add_column(heading, justify="right")
    conditions = report["conditions"]
    for name in sorted(conditions, key=_place):
        row = conditions[name]
        table.add_row(
            _TITLES.get(name, name).format(shots=report["shots"]),
            f"{row['accuracy']:.1%}",
            f"{row['low']:.1%} - {row['high']:.1%}",
            f"{row['prompt_tokens']:.0f}",
            str(row["labels"]),
        )
    return table


def _place(name: str) -> int:
    known = list(_TITLES)
    return known.index(name) if name in known else len(known)
