"""What commands print for people: texts as they are, on every terminal, whatever it can show."""

import io
import os
import re
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

LEAST_COLUMN_WIDTH: Final = 8
_STEERING: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def accept_every_text() -> None:
    """Lets what an encoding has no sign for be written as its number, and no text be lost."""
    # Where one was closed, its number would go to the next file, and `print` to the other one.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Some terminals say so while they do not know, and rich then prints nothing.
    if os.environ.get("COLUMNS", "").strip("0") == "":  # noqa: TID251 - that rich reads
        os.environ.pop("COLUMNS", None)  # noqa: TID251


def flush_results() -> None:
    """Writes what is still held back, so that whatever prevents it is told.

    Raises:
        OSError: It cannot be written; nothing is held back any more.
    """
    try:
        sys.stdout.flush()
    except OSError:
        # Python tries once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def harmless(text: str) -> str:
    """What others wrote, with what would steer a terminal written as its number."""
    return _STEERING.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that takes nothing in a text for markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def show_table(table: Table) -> None:
    """A table on stdout; on a terminal too narrow for its columns the lines are longer."""
    console = plain_console()
    console.width = max(console.width, LEAST_COLUMN_WIDTH * len(table.columns))
    console.print(table)
