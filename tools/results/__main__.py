"""`python -m tools.results`: write docs/results.md and its pictures from docs/results.json."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tools.results.page import TITLE, page
from tools.results.plots import draw

_DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(
    *,
    source: Annotated[Path, typer.Option(help="What `vlibrary evaluate --suite` printed.")] = (
        _DOCS / "results.json"
    ),
    target: Annotated[Path, typer.Option(help="The page.")] = _DOCS / "results.md",
    title: Annotated[str, typer.Option(help="Its heading.")] = TITLE,
) -> None:
    """Write the page of a run's results, and its pictures into a folder of the same name."""
    report = json.loads(source.read_text())
    pictures = target.with_suffix("")
    drawn = [f"{pictures.name}/{name}" for name in draw(report, pictures)]
    target.write_text(page(report, title=title, plots=drawn))
    print(f"Wrote {target}")


if __name__ == "__main__":
    typer.run(main)
