"""What readers of official layouts share: JSON files, pictures by name, one item at a time."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from app.core.errors import InvalidDatasetError, NotFoundError
from app.core.identifiers import digest_of
from app.core.pictures import Picture
from app.method.backbone.examples import Example
from app.method.backbone.randomness import sample_places

Entries: TypeAlias = tuple[Sequence[Any], Callable[[Any], Example]]
"""The entries of a part of a data set, and what makes an item of one, asked in their order."""


def read_json(path: Path, *, kind: type) -> Any:  # noqa: ANN401
    """What the file holds.

    Raises:
        NotFoundError: There is no such file.
        InvalidDatasetError: It is no JSON of that kind.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"The data set lacks a file: wanted {path.name} in {path.parent}, found none"
        ) from error
    except ValueError as error:
        raise InvalidDatasetError(f"{path.name} is no JSON") from error
    if not isinstance(found, kind):
        raise InvalidDatasetError(
            f"{path.name} has another layout: wanted a {kind.__name__}, found a "
            f"{type(found).__name__}"
        )
    return found


def item_reader(folder: Path) -> Callable[..., Example]:
    """What makes items of entries; pictures stay encoded, where they lie."""

    @cache
    def picture_of(name: str) -> Picture:
        path = folder / name
        try:
            digest = digest_of(path)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"The data set lacks a picture: wanted {name}, found none"
            ) from error
        return Picture(digest=digest, source=path.read_bytes)

    def read_item(
        *, picture: str | Sequence[str], question: str, answers: Sequence[str], name: str
    ) -> Example:
        """One item, by the path of its picture below the folder, or of each."""
        names = [picture] if isinstance(picture, str) else picture
        image, *others = map(picture_of, names)
        return Example(
            image=image,
            question=question,
            answers=tuple(answers),
            image_id=" ".join(names),
            id=name,
            others=tuple(others),
        )

    return read_item


def read_some(read: Callable[[], Entries], *, limit: int | None, seed: int) -> list[Example]:
    """Items of all entries, or of as many as are wanted, chosen at random.

    Raises:
        InvalidDatasetError: A file or an entry is not as the makers publish it.
    """
    what, found = "Its files have", []
    try:
        entries, make = read()
        for place in sample_places(len(entries), limit=limit, seed=seed):
            what = f"Entry {place} has"
            found.append(make(entries[place]))
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InvalidDatasetError(
            f"{what} another layout: {type(error).__name__} {error}"
        ) from error
    return found
