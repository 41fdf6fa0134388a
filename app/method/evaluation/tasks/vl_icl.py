"""VL-ICL Bench: for each task a file of queries and one of what demonstrates.

Official names: `TASK/query.json` and `TASK/support.json`, pictures below the same folder. Which
demonstrations a query may have is a rule of each task: those of `open_mi` come with the query and
bind two of its classes, and the answer of an operator's support item is a list, of which the
query's operator takes one.

Source: https://github.com/ys-zong/VL-ICL.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.core.errors import InvalidDatasetError, InvalidInputError
from app.method.backbone.examples import Example
from app.method.backbone.randomness import generator_for
from app.method.evaluation.tasks.official import Reader, read_json

SCORERS: Final[Mapping[str, str]] = {
    "open_mi": "vl-icl",
    "operator_induction": "vl-icl-number",
    "clevr": "vl-icl",
    "textocr": "vl-icl",
}
_OPERATORS: Final = ("+", "-", "x")
_OPEN_QUESTION: Final = "This is a"


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """A query with the demonstrations that its task's rule gave it.

    Attributes:
        query: What is asked.
        context: First to last; `open_mi` has twice as many as shots.
    """

    query: Example
    context: tuple[Example, ...]


def load_episodes(folder: Path, task: str, *, shots: int, seed: int = 0) -> list[Episode]:
    """All queries of a task with their demonstrations.

    Args:
        folder: Of the benchmark.
        task: A name of `SCORERS`; the other tasks show two pictures at once or want pictures made.
        shots: Demonstrations, of each of two classes in `open_mi`.
        seed: Of the choice.

    Raises:
        NotFoundError: A file or a picture is missing.
        InvalidInputError: The task is not among them.
        InvalidDatasetError: A file has another layout, or fewer demonstrations than shots.
    """
    if task not in SCORERS:
        raise InvalidInputError(
            f"No such task with one picture and a text to answer: wanted {', '.join(SCORERS)}, "
            f"found {task}"
        )
    queries = read_json(folder / task / "query.json", kind=list)
    support = read_json(folder / task / "support.json", kind=list)
    reader = Reader(folder)
    episodes = []
    for number, query in enumerate(queries):
        rng = generator_for(seed, "vl-icl", number)
        try:
            shown = _demonstrations(task, query, support, shots=shots, rng=rng)
            context = [
                _item(reader, one, name=f"{task}/{number}/{i}") for i, one in enumerate(shown)
            ]
            asked = _item(reader, {"question": _OPEN_QUESTION, **query}, name=f"{task}/{number}")
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise InvalidDatasetError(
                f"Query {number} of {task} has another layout, or there are fewer than {shots} "
                f"demonstrations for it: {type(error).__name__} {error}"
            ) from error
        episodes.append(Episode(query=asked, context=tuple(context)))
    return episodes


def _demonstrations(
    task: str,
    query: dict[str, Any],
    support: list[dict[str, Any]],
    *,
    shots: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    if task == "open_mi":
        others = [name for name in query["classes"] if name != query["answer"]]
        pair = [query["answer"], str(rng.choice(others))]
        order = [pair[int(place)] for place in rng.permutation(2)]
        return [
            {
                "image": [query["support"][name]["images"][shot]],
                "question": _OPEN_QUESTION,
                "answer": name,
            }
            for shot in range(shots)
            for name in order
        ]
    chosen = [support[int(i)] for i in rng.choice(len(support), size=shots, replace=False)]
    if task == "operator_induction":
        place = _OPERATORS.index(query["operator"])
        return [{**one, "answer": one["answer"][place]} for one in chosen]
    return chosen


def _item(reader: Reader, entry: dict[str, Any], *, name: str) -> Example:
    images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    if len(images) != 1:
        raise InvalidDatasetError(f"{name}: wanted one picture, found {len(images)}")
    return reader.item(
        picture=images[0],
        question=entry["question"],
        answers=[str(entry["answer"])],
        name=name,
    )
