"""What terminals show: how far an upload or a training is, and how a training ended.

At its end every way of answering stands side by side, with what each one costs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from vlibrary_client.types import Progress

_TITLES = {
    "m2iv": "M2IV",
    "zero_shot": "zero-shot",
    "icl": "{shots}-shot ICL",
    "icl_balanced": "8-shot balanced ICL",
    "knn_icl": "{shots}-shot kNN-ICL",
    "nearest_copy": "nearest item's answer",
    "majority": "most usual answer",
}

# In a terminal of 80 columns; other headings take two.
_ON_ONE_LINE = ("accuracy", "95 % interval", "labels")

OnProgress: TypeAlias = Callable[[Progress], None]


@contextmanager
def progress_reporter(
    *,
    progress: bool | OnProgress,
    title: str,
    waits_for: str | None = None,
    console: Console | None = None,
) -> Iterator[OnProgress]:
    """A function to call with every report; what is waited for is shown until the first.

    It draws a bar on standard error, says nothing, or is the caller's own function.
    """
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda _: None
        return
    with _bars(console or Console(stderr=True)) as bars:
        waiting = "" if waits_for is None else f" · waits for {waits_for}"
        task = bars.add_task(f"{title}{waiting}", total=None, steps="", figures="")

        def report(report: Progress) -> None:
            bars.update(
                task,
                description=f"{title} · {report.phase}",
                completed=report.step,
                total=report.num_steps or None,
                steps=f"{report.step}/{report.num_steps or '?'}",
                figures=_figures(report),
            )

        yield report


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )


def _figures(report: Progress) -> str:
    known = {name: value for name, value in report.losses.items() if value is not None}
    figures = [f"{name} {value:.3f}" for name, value in known.items()]
    if report.held_out_accuracy is not None:
        figures.append(f"held-out {report.held_out_accuracy:.1%}")
    return "  ".join(figures)


def print_report(report: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Prints the comparison, what it says of the vector, and what to do.

    It goes to standard error unless another console is given.
    """
    out = console or Console(stderr=True)
    if report["conditions"]:
        out.print(comparison_table(report))
    lines = [f"{report['status']}: {report['reason']}", report["advice"]]
    shown = report.get("demonstrations")
    if shown and shown["found"] < shown["wanted"]:
        lines.append(
            f"Wanted {shown['wanted']} demonstrations before a question, found {shown['found']}: "
            "the data set has no more for them."
        )
    if left_out := report.get("left_out"):
        lines.append(f"Left out: {left_out} items whose pictures were trained on.")
    if unchecked := report.get("unchecked"):
        lines.append(f"Nobody knows any more what was trained on: {', '.join(unchecked)}.")
    if overlaps := report.get("overlaps"):
        lines.append(
            f"Looks the same as {', '.join(overlaps)}: `auto` abstains between them unless one of "
            "them is preferred."
        )
    for line in lines:
        out.print(line, highlight=False, markup=False, emoji=False)


def condition_title(name: str, *, shots: int) -> str:
    """What a way of answering is called; what has no title is called as it is."""
    return _TITLES.get(name, name).format(shots=shots)


def comparison_table(report: Mapping[str, Any], *, title: str | None = None) -> Table:
    """A table for the terminal, of `conditions` and `shots`."""
    table = Table(title=title or f"{report['items']} held-out items, exact answer")
    table.add_column("", no_wrap=True)
    conditions = report["conditions"]
    # Evaluations take the time, trainings do not; and nobody is asked for what is copied.
    is_timed = any("ms_per_query" in row for row in conditions.values())
    timed = ("ms a query",) if is_timed else ()
    for heading in ("accuracy", "95 % interval", "prompt tokens", "labels", *timed):
        table.add_column(heading, justify="right", no_wrap=heading in _ON_ONE_LINE)
    for name in sorted(conditions, key=[*_TITLES, *conditions].index):
        row = conditions[name]
        taken = f"{row['ms_per_query']:.1f}" if "ms_per_query" in row else "-"
        table.add_row(
            condition_title(name, shots=report["shots"]),
            f"{row['accuracy']:.1%}",
            f"{row['low']:.1%} - {row['high']:.1%}",
            f"{row['prompt_tokens']:.0f}",
            "?" if row["labels"] is None else str(row["labels"]),
            *((taken,) if is_timed else ()),
        )
    return table


Show: TypeAlias = Callable[[str, int, int | None], None]
"""Shows a stage of an upload, and of bytes that are sent how many and of how many."""


def sending(path: Path, show: Show) -> Callable[[int], None]:
    """What is to be told how many bytes of the file are sent."""
    size = path.stat().st_size

    def on_sent(num_bytes: int) -> None:
        if num_bytes < size:
            show("sending", num_bytes, size)
        else:
            # What is not measured moves without an end.
            show("the server checks every row and picture", 0, None)

    return on_sent


@contextmanager
def upload_progress(*, is_shown: bool, title: str) -> Iterator[Show]:
    """Draws a bar with the time that has passed on standard error, or says nothing."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[sent]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), disable=not is_shown) as bars:
        task = bars.add_task(f"{title} · packing", total=None, sent="")

        def show(stage: str, num_bytes: int, size: int | None) -> None:
            sent = "" if size is None else f"{decimal(num_bytes)} of {decimal(size)}"
            bars.update(
                task,
                description=f"{title} · {stage}",
                completed=num_bytes,
                total=size,
                sent=sent,
            )

        yield show
