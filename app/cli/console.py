"""What commands print: JSON, or for people texts as they are, whatever a terminal can show."""

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

LEAST_COLUMN_WIDTH: Final = 8
LEAST_OF_LAST: Final = 20
_STEERING: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def accept_every_text() -> None:
    """Lets what an encoding has no sign for be written as its number, and no text be lost.

    Bars that others draw are for terminals alone.
    """
    # Where one was closed, its number would go to the next file, and `print` to the other one.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        # transformers draws its bars into files and pipes as well.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # noqa: TID251 - that it reads
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


def print_json(value: object) -> None:
    """One JSON text on stdout, of dataclasses and JSON values; times are ISO 8601."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON has no word for
    if is_dataclass(value):
        return asdict(value)  # type: ignore[arg-type]  # no class is printed
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_result(value: object, text: str, *, as_json: bool) -> None:
    """A value as JSON, or the text that tells people of it."""
    if as_json:
        print_json(value)
    else:
        print(text)
