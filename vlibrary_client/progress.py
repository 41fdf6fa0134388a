"""Shows a training job's progress: on a terminal with rich, or by the caller's own function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from vlibrary_client.types import Progress

OnProgress: TypeAlias = Callable[[Progress], None]


@contextmanager
def progress_reporter(
    *,
    progress: bool | OnProgress,
    title: str,
    console: Console | None = None,
) -> Iterator[OnProgress]:
    """A function to call with every report.

    Args:
        progress: `True` for a bar on the terminal, `False` for silence, or a function of one's own.
        title: What the bar is called.
        console: Where the bar is drawn; standard error unless given.
    """
    if callable(progress):
        yield progress
        return
    if not progress:
        yield _ignore
        return
    with _bars(console or Console(stderr=True)) as bars:
        task = bars.add_task(title, total=None, figures="")

        def report(report: Progress) -> None:
            bars.update(
                task,
                description=f"{title} · {report.phase}",
                completed=report.step,
                total=report.num_steps or None,
                figures=_figures(report),
            )

        yield report


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
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


def _ignore(_report: Progress) -> None:
    """The reporter of a caller who wants silence."""
