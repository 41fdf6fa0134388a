"""`python -m examples.uses`: train, measure and print the three uses."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import load_backbone
from examples.uses import alignment, generation, safety
from examples.uses.shapes import Bench

USES = {
    "Cross-modal alignment: accuracy": alignment.measure,
    "Customised generation: answers as wished": generation.measure,
    "Safety: the colour must not be told": safety.measure,
}


def main(
    *,
    backbone: Annotated[
        str, typer.Option(help="pocket, pocket-2, a folder or a hub id.")
    ] = "pocket",
    items: Annotated[int, typer.Option(min=8, help="Labelled items a training.")] = 64,
    questions: Annotated[int, typer.Option(min=2, help="Test questions.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Most optimiser steps.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Three uses of vectors, each with its measured effect."""
    loaded = load_backbone(backbone)
    bench = Bench(
        backbone=loaded,
        features=FeatureCache(loaded),
        items=items,
        questions=questions,
        steps=steps,
    )
    found = {}
    for name, measure in USES.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = measure(bench)
        if not as_json:
            Console().print(_table(name, found[name]))
    if as_json:
        print(json.dumps(found, indent=2))


def _table(name: str, rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title=name, title_justify="left")
    headings = list(next(iter(rows.values())))
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    for row, figures in rows.items():
        table.add_row(row, *(f"{figures[heading]:.1%}" for heading in headings))
    return table


if __name__ == "__main__":
    typer.run(main)
