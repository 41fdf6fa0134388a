"""`vlibrary datasets`: look at data sets before they are uploaded or trained on."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli.local_datasets import convert_local, read_map

datasets = typer.Typer(
    name="datasets", help="Look at data sets before they are uploaded.", no_args_is_help=True
)


@datasets.callback()
def root() -> None:
    """Look at data sets before they are uploaded."""


@datasets.command()
def check(
    source: Annotated[str, typer.Argument(help="A folder or a file of any known layout.")],
    *,
    column_map: Annotated[
        list[str] | None,
        typer.Option("--map", help="Which column is which: question=COLUMN; may be repeated."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be used.")
    ] = False,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Take rows without a picture as text alone.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read every row and picture as an upload would, and tell what was found."""
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="vlibrary-") as folder,
        console.status("reading every row and picture"),
    ):
        report = convert_local(
            source,
            Path(folder) / "dataset.parquet",
            columns=read_map(column_map),
            skip_bad=skip_bad,
            text_only=text_only,
        ).as_json()
    if as_json:
        print(json.dumps(report, indent=2))
        return
    out = Console(highlight=False)
    for name, value in report.items():
        if name == "bad_rows":
            continue
        shown = (
            ", ".join(f"{split} {count}" for split, count in value.items()) or "none named"
            if isinstance(value, dict)
            else value
        )
        if name != "notes":
            out.print(f"{name.replace('_', ' ')}: {shown}")
    for note in report["notes"]:  # type: ignore[union-attr]
        out.print(f"note: {note}")
    for row in report["bad_rows"]:  # type: ignore[union-attr]
        out.print(f"left out, {row['place']}: {row['reason']}")  # type: ignore[index,call-overload]
