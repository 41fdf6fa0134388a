"""A suite of one or two tiny tasks on disk."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tools.suite.items import SPLITS, Item, Task, write_suite


def tiny_task(name: str, *, counts: Sequence[int] = (16, 8, 8), word: str = "red") -> Task:
    """Squares in two colours with a question each, no picture in two splits."""
    items = {}
    for place, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        items[split] = [
            Item(
                image=Image.new(
                    "RGB", (16, 16), (220 - number, 30 + place, 30 + 190 * (number % 2))
                ),
                picture=f"{name}/{split}/{number}",
                question="what color is the shape?",
                answer=word if number % 2 else "blue",
            )
            for number in range(count)
        ]
    return Task(name=name, about="squares", items=items, max_new_tokens=4)


def tiny_suite(folder: Path, *names: str) -> Path:
    """The folder of a suite with these tasks."""
    write_suite("tiny", [tiny_task(name) for name in names or ("squares",)], folder)
    return folder
