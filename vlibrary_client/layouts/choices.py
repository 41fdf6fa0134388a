"""The answer of a multiple-choice question, which prompts show without its choices."""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from vlibrary_client.layouts.items import UnusableError
from vlibrary_client.layouts.values import listing

CHOICE_COLUMN = "correct_choice_idx"
CHOICES_COLUMNS = ("choices", "options")
# B, (B), B. and B) name a choice by its letter.
_LETTER = re.compile(r"\(?([A-Z])[).]?")
# Digits of no place in a list.
_LONG = 5


def chosen(fields: Mapping[str, Any]) -> object:
    """The choice that a record's answer tells by its place, letter or label; None for others.

    Raises:
        UnusableError: There is no such choice.
    """
    place = fields.get(CHOICE_COLUMN)
    labels, choices = _choices(fields)
    if place is None and choices is not None:
        answer = fields.get("answer")
        place = None if answer in choices else _place(answer, labels)
    if place is None:
        return None
    place = _place(place, labels)
    if choices is None or place is None or not 0 <= place < len(choices):
        raise UnusableError("its answer is no place in its choices")
    return choices[place]


def _choices(fields: Mapping[str, Any]) -> tuple[Sequence[object], list[Any] | None]:
    """What choices are called, and the choices."""
    given = (listing(fields.get(column)) for column in CHOICES_COLUMNS)
    found = next((one for one in given if one and isinstance(one, list | Mapping)), None)
    if isinstance(found, Mapping) and {*found} == {"label", "text"}:
        found = dict(zip(found["label"], found["text"], strict=True))
    if isinstance(found, Mapping):
        return list(found), list(found.values())
    return string.ascii_uppercase, found


def _place(answer: object, labels: Sequence[object]) -> int | None:
    """The place that an answer tells, also as a text or a float that tables make of it."""
    if isinstance(answer, float) and answer.is_integer():
        return int(answer)
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer
    if not isinstance(answer, str):
        return None
    letter = _LETTER.fullmatch(answer)
    for name in (answer, letter and letter[1]):
        if name and name in [*labels]:
            return labels.index(name)
    return int(answer) if answer.isascii() and answer.isdecimal() and len(answer) < _LONG else None
