"""What every reader makes of a source: items that can be used, and those that cannot."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vlibrary_client.errors import InvalidDatasetError

COLUMNS = ("image", "question", "answer", "answers", "id", "image_id", "split")


class Constant(str):
    """What every record has, in place of a column's name."""

    __slots__ = ()


ColumnMap: TypeAlias = Mapping[str, str]
"""Which column of the source is which of `COLUMNS`, where the names differ, or its `Constant`."""


def mapped(columns: ColumnMap) -> set[str]:
    """The source's columns that are named."""
    return {column for column in columns.values() if not isinstance(column, Constant)}


def with_question(columns: ColumnMap | None, question: str | None) -> ColumnMap:
    """The map, and what is asked about every picture of a source that asks nothing itself.

    Raises:
        InvalidDatasetError: The map has a column of questions as well.
    """
    if question is not None and "question" in (columns or {}):
        raise InvalidDatasetError(
            "wanted a column of questions or one question for all, found both"
        )
    return {**(columns or {}), **({} if question is None else {"question": Constant(question)})}


class UnusableError(Exception):
    """Why one record is no item; the text goes to the user behind the record's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A question with its answers, and usually a picture.

    Attributes:
        place: Where it stands in its source: `row 7`, `metadata.jsonl line 8`.
        question: What is asked.
        answers: At least one.
        image: The encoded picture; None for an item of text alone.
        image_name: What the source calls the picture.
        id: What the source calls the item.
        image_id: Equal for items that show one picture, where the source says so.
        split: The part of the source it belongs to, where the source says so.
    """

    place: str
    question: str
    answers: tuple[str, ...]
    image: bytes | None = None
    image_name: str | None = None
    id: str | None = None
    image_id: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadItem:
    """A record that is no item."""

    place: str
    reason: str


Found: TypeAlias = Item | BadItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The fields of one record as a format holds them.

    There are no fields where `problem` says why they cannot be read; `split` is told where records
    of one reader are of several.
    """

    place: str
    fields: Mapping[str, Any]
    split: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source that has been recognised.

    Items come in order, and are read as they are taken; `notes`, for who stored the source, may
    become more meanwhile.
    """

    layout: str
    found: Iterator[Found]
    notes: list[str] = field(default_factory=list)
