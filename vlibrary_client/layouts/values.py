"""What the values of columns stand for: labels by name, choices, numbers as they were written."""

import ast
import json
import math
import re
import string
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from vlibrary_client.layouts.items import UnusableError

MAX_LISTING_CHARACTERS = 64_000
CHOICE_COLUMN = "correct_choice_idx"
CHOICES_COLUMNS = ("choices", "options")
# B, (B), B. and B) name a choice by its letter, large or small.
_LETTER = re.compile(r"\(?([A-Za-z])[).]?")
# Digits of no place in a list.
_LONG = 5
# Decimal digits that numbers of so few bits may need, and how `struct` calls them.
_SHORT_FLOATS = {2: ("e", range(3, 6)), 4: ("f", range(6, 10))}


def labelled(value: object, feature: object) -> object:
    """The value with the names of labels in place of their numbers, wherever they stand in it.

    Args:
        value: As a column holds it.
        feature: What Hugging Face writes of the column, as JSON.
    """
    if (inner := _inner(feature)) is not None:
        return labelled(value, inner)
    if isinstance(value, list):
        return [labelled(one, feature) for one in value]
    names = _names(feature)
    if isinstance(value, Mapping) and isinstance(feature, Mapping):
        return {name: labelled(one, feature.get(name)) for name, one in value.items()}
    if names is None:
        return value
    if isinstance(value, int) and 0 <= value < len(names):
        return str(names[value])
    # Hugging Face writes -1 where a label is not known.
    return None


def has_labels(feature: object) -> bool:
    """Whether a column of this feature holds labels anywhere."""
    if (inner := _inner(feature)) is not None:
        return has_labels(inner)
    members = feature.values() if isinstance(feature, Mapping) else ()
    return _names(feature) is not None or any(map(has_labels, members))


def feature_of(feature: object) -> object:
    """A feature of the `datasets` library as Hugging Face writes it."""
    if isinstance(feature, Mapping):
        return {name: feature_of(one) for name, one in feature.items()}
    inner = feature[0] if isinstance(feature, list) and feature else None
    inner = getattr(feature, "feature", inner)
    if inner is not None:
        return [feature_of(inner)]
    names = getattr(feature, "names", None)
    return {} if names is None else {"_type": "ClassLabel", "names": list(names)}


def _inner(feature: object) -> object:
    """The feature of a list's members."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, Mapping) and "_type" in feature else None


def _names(feature: object) -> list[Any] | None:
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return names if isinstance(names, list) else None


def as_written(value: object, num_bytes: int) -> object:
    """The shortest number that is the value in so few bytes, wherever one stands in it.

    0.1 is 0.10000000149011612 in four bytes, and nobody wrote that.
    """
    if isinstance(value, list):
        return [as_written(one, num_bytes) for one in value]
    if isinstance(value, Mapping):
        return {name: as_written(one, num_bytes) for name, one in value.items()}
    if not isinstance(value, float) or num_bytes not in _SHORT_FLOATS or value.is_integer():
        return value
    form, digits = _SHORT_FLOATS[num_bytes]
    tried = (float(f"{value:.{count}g}") for count in digits)
    return next((one for one in tried if struct.pack(form, one) == struct.pack(form, value)), value)


def plain(value: object) -> object:
    """Numbers and arrays of numpy and gaps of pandas as Python has them, wherever they stand."""
    is_nan = isinstance(value, float) and math.isnan(value)
    if is_nan or type(value).__name__ in {"NAType", "NaTType"}:
        # They are neither true nor false, nor equal to anything.
        return None
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    dtype = getattr(value, "dtype", None)
    as_python = getattr(value, "tolist", None)
    if dtype is None or as_python is None:
        return value
    found = as_python()
    if holds_objects(value):
        return plain(found)
    return as_written(found, getattr(dtype, "itemsize", 8))


def holds_objects(value: object) -> bool:
    """Whether an array is what pandas makes of a list, rather than of numbers."""
    return getattr(getattr(value, "dtype", None), "kind", None) == "O"


def listing(answers: object, what: str = "answers or choices") -> object:
    """Several answers as a list, also where they came as the text of one or as a table of them.

    Raises:
        UnusableError: It begins like a list and is none.
    """
    if isinstance(answers, Mapping) and isinstance(answers.get("answer"), list | tuple):
        return answers["answer"]
    if not isinstance(answers, str) or not answers.lstrip().startswith("["):
        return answers
    try:
        return json.loads(answers)
    except (ValueError, RecursionError):
        pass
    # How Python writes a list; other texts that it can read are no lists of answers.
    if len(answers) <= MAX_LISTING_CHARACTERS:
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            found = ast.literal_eval(answers)
            if repr(found) == answers:
                return found
    raise UnusableError(f"its {what} begin like a list and are none in JSON")


def chosen(fields: Mapping[str, Any], only: object) -> object:
    """The choice that a record's answer tells by its place, letter or label; None for others.

    `only` is what else would be its only answer.

    Raises:
        UnusableError: There is no such choice.
    """
    place = fields.get(CHOICE_COLUMN)
    labels, choices = _choices(fields)
    if place is None and choices is not None:
        answer = only if fields.get("answer") is None else fields["answer"]
        place = None if answer in choices else _place(answer, labels)
    if place is None:
        return None
    place = _place(place, labels)
    known = dict(enumerate(choices or ()))
    if place is None or known.get(place) is None:
        raise UnusableError("its answer is no place in its choices")
    return known[place]


def _choices(fields: Mapping[str, Any]) -> tuple[Sequence[object], list[Any] | None]:
    """What choices are called, and the choices."""
    lists = (listing(fields.get(column)) for column in CHOICES_COLUMNS)
    found = next((one for one in lists if one and isinstance(one, list | Mapping)), None)
    if found and all(isinstance(one, Mapping) and {*one} == {"label", "text"} for one in found):
        found = {key: [one[key] for one in found] for key in ("label", "text")}
    if isinstance(found, Mapping) and {*found} == {"label", "text"}:
        labels, texts = found["label"], found["text"]
        is_pair = isinstance(labels, list) and isinstance(texts, list)
        if not is_pair or len({*map(str, labels)}) != len(labels) or len(labels) != len(texts):
            raise UnusableError("its choices have no label of its own for each text")
        return labels, texts
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
    for name in (answer, *((letter[1], letter[1].upper()) if letter else ())):
        if name in [*labels]:
            return labels.index(name)
    digits = answer.removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < _LONG else None
