"""The server that commands talk to, and how its answers are printed."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from app.cli.console import harmless, plain_console

if TYPE_CHECKING:
    from vlibrary_client import Client, Page, Vector

T = TypeVar("T")

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Where the server is; VLIBRARY_URL, ~/.config/vlibrary/config.toml or port 8000.",
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", help="A key; VLIBRARY_API_KEY or that file otherwise.")
]

MAX_PAGE: Final = 200
LEAST_OF_LAST: Final = 20
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
Ref = Annotated[str, typer.Argument(help="A name, name@version, name@alias or an id.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="For filters; may be repeated.")]
Refs = Annotated[list[str], typer.Argument(help="Names, name@version, name@alias or ids.")]


@contextmanager
def connected(url: str | None, key: str | None) -> Iterator["Client"]:
    """A client of the server; its errors become one line and exit status 1."""
    from vlibrary_client import Client, VLibraryError

    try:
        with Client(url, api_key=key) as client:
            yield client
    except VLibraryError as error:
        print(f"vlibrary: {harmless(str(error))}", file=sys.stderr)
        raise typer.Exit(1) from None


def print_json(value: object) -> None:
    """One JSON text on stdout, of dataclasses and JSON values; times are ISO 8601."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON has no word for
    if is_dataclass(value):
        return asdict(value)  # type: ignore[arg-type]  # no class is printed
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_stored(text: str, notes: Iterable[str]) -> None:
    """What was stored, and what the server has to say about it."""
    print(f"Stored {text}")
    for note in notes:
        print(f"note: {harmless(note)}")


def print_vector(vector: "Vector", *, as_json: bool) -> None:
    """A vector that was stored."""
    if as_json:
        print_json(vector)
    else:
        print_stored(vector.ref, vector.notes)


def print_table(titles: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """A table on stdout; texts that others wrote are shown as they are.

    All of a row but its last cell stands whole on one line, to be copied; in a pipe that as well.
    """
    cells = [["" if cell is None else harmless(str(cell)) for cell in row] for row in rows]
    lines = [list(map(harmless, titles)), *cells] if any(titles) else cells
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)][:-1]
    console, indent = plain_console(), sum(widths) + 2 * len(widths)
    room = max(console.width - indent, LEAST_OF_LAST) if console.is_terminal else sys.maxsize
    for *whole, last in lines:
        first, *more = Text(last).wrap(console, room, tab_size=1) or [""]
        print("  ".join([*map(set_cell_size, whole, widths), str(first)]).rstrip())
        print(*(f"{'':{indent}}{line}\n" for line in more), sep="", end="")


def print_listed(
    list_page: "Callable[..., Page[T]]",
    *,
    titles: Sequence[str],
    line: "Callable[[T], Iterable[object]]",
    limit: int,
    as_json: bool,
    **filters: Any,  # noqa: ANN401 - of the listing
) -> None:
    """What a server lists, as a table or as JSON; that there is more is told beside it."""
    found: list[T] = []
    cursor: str | None = None
    while len(found) < limit:
        page = list_page(limit=min(MAX_PAGE, limit - len(found)), cursor=cursor, **filters)
        found += page
        cursor = page.next_cursor
        if cursor is None:
            break
    if as_json:
        print_json({"items": found})
    else:
        print_table(titles, map(line, found))
    if cursor is not None:
        print("There is more: a larger --limit shows it", file=sys.stderr)


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "" if share is None else f"{100 * share:.1f} %"
