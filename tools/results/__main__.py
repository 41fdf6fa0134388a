"""`python -m tools.results`: write docs/results.md from docs/results.json."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tools.results.page import page

_DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(
    *,
    source: Annotated[Path, typer.Option(help="What `vlibrary evaluate --suite` printed.")] = (
        _DOCS / "results.json"
    ),
    target: Annotated[Path, typer.Option(help="The page.")] = _DOCS / "results.md",
) -> None:
    """Write the page of a run's results."""
    target.write_text(page(json.loads(source.read_text())))
    print(f"Wrote {target}")


if __name__ == "__main__":
    typer.run(main)
