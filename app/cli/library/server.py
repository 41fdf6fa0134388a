"""The server that commands talk to, and how its answers are printed."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from app.cli.console import harmless, print_json, print_result, print_table

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


def print_stored(value: object, text: str, notes: Iterable[str], *, as_json: bool) -> None:
    """What was stored, and what the server has to say about it."""
    told = [f"Stored {text}", *(f"note: {harmless(note)}" for note in notes)]
    print_result(value, "\n".join(told), as_json=as_json)


def print_vector(vector: "Vector", *, as_json: bool) -> None:
    """A vector that was stored."""
    print_stored(vector, vector.ref, vector.notes, as_json=as_json)


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
