"""From one record of a data set to an example.

Knows the names that fields go by; knows no file format.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from app.core.errors import InvalidDatasetError
from app.core.pictures import Picture
from app.method.backbone.examples import Example


def read_answers(record: Mapping[str, Any], *, item: str) -> tuple[str, ...]:
    """The answers of a record: `answers` as a list of texts, or `answer` as one.

    Raises:
        InvalidDatasetError: There is neither, or it is no text.
    """
    value = record.get("answers") or record.get("answer")
    answers = (value,) if isinstance(value, str) else value
    if not isinstance(answers, list | tuple) or not all(isinstance(a, str) for a in answers):
        raise InvalidDatasetError(
            f"Item {item}: wanted answer or answers as text, found {type(value).__name__}",
            details={"item": item},
        )
    return tuple(answers)


def read_question(record: Mapping[str, Any], *, item: str) -> str:
    """The question of a record.

    Raises:
        InvalidDatasetError: There is none, or it is no text.
    """
    question = record.get("question")
    if not isinstance(question, str):
        raise InvalidDatasetError(
            f"Item {item}: wanted a question as text, found {type(question).__name__}",
            details={"item": item},
        )
    return question


def make_example(record: Mapping[str, Any], *, item: str, image: Picture, image_id: str) -> Example:
    """The example of a record and its picture.

    Args:
        record: Has a question and answers; its own `id` and `image_id` win over the given ones.
        item: Names the record when it has no `id`.
        image: Its picture.
        image_id: Names the picture when the record does not.

    Raises:
        InvalidDatasetError: A field is missing or of another type.
    """
    return Example(
        image=image,
        question=read_question(record, item=item),
        answers=read_answers(record, item=item),
        image_id=str(record.get("image_id", image_id)),
        id=str(record.get("id", item)),
    )


def sample_places(count: int, *, limit: int | None, seed: int) -> list[int]:
    """Which records to read, ascending: all of them, or `limit` chosen at random.

    Args:
        count: Records there are.
        limit: The most wanted; None wants all.
        seed: Of the choice.
    """
    if limit is None or limit >= count:
        return list(range(count))
    chosen = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return sorted(int(place) for place in chosen)
