"""Shows how far an upload is: what is packed, what is sent, and how long the server has checked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class UploadProgress:
    """Tells of one upload; what is not measured moves without an end.

    Args:
        show: Told the stage, and of bytes that are sent how many and of how many.
    """

    def __init__(self, show: Callable[[str, int, int | None], None]) -> None:
        self._show = show
        show("packing", 0, None)

    def of(self, path: Path) -> Callable[[int], None]:
        """What is to be told how many bytes of the file are sent."""
        size = path.stat().st_size

        def on_sent(num_bytes: int) -> None:
            if num_bytes < size:
                self._show("sending", num_bytes, size)
            else:
                self._show("the server checks every row and picture", 0, None)

        return on_sent


@contextmanager
def upload_progress(
    *, is_shown: bool, title: str, console: Console | None = None
) -> Iterator[UploadProgress]:
    """Draws a bar with the time that has passed on standard error, or says nothing."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[sent]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True), disable=not is_shown) as bars:
        task = bars.add_task(title, total=None, sent="")

        def show(stage: str, num_bytes: int, size: int | None) -> None:
            sent = "" if size is None else f"{decimal(num_bytes)} of {decimal(size)}"
            bars.update(
                task,
                description=f"{title} · {stage}",
                completed=num_bytes,
                total=size,
                sent=sent,
            )

        yield UploadProgress(show)
