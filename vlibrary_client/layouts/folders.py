"""What the names of files and folders say: the split they belong to, the class of pictures."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.items import Record

_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing|eval)(?:\d{4})?")


def split_of(relative: Path) -> str | None:
    """The split that a file's name, or else the folder it lies in, speaks of."""
    for part in (relative.stem, *reversed(relative.parts[:-1])):
        for word in re.split(r"[^a-z0-9]+", part.lower()):
            if match := _SPLIT.fullmatch(word):
                return match.group(1)
    return None


def class_records(root: Path, files: Iterable[Path], *, is_asked: bool) -> Iterator[Record]:
    """One record for every picture, whose answer is what its folder is called.

    Raises:
        InvalidDatasetError: Nothing is asked about them.
    """
    if not is_asked:
        raise InvalidDatasetError(
            "pictures lie in folders of classes, and nothing is asked about them: wanted one "
            "question for all, such as question='What is this?'"
        )
    for file in files:
        path = file.relative_to(root)
        name = path.parent.name
        is_class = name and not _SPLIT.fullmatch(name.lower())
        yield Record(
            place=str(path),
            fields={"image": str(path), "answer": name},
            split=split_of(path.parent.parent),
            problem=None if is_class else "it lies in no folder that is called by a class",
        )
