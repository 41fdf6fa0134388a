"""VL-ICL Bench: for each task a file of queries and one of what demonstrates.

Official names: `TASK/query.json` and `TASK/support.json`, pictures below the same folder. Which
demonstrations a query may have is a rule of each task: those of `open_mi` come with the query and
bind two of its classes, the answer of an operator's support item is a list, of which the query's
operator takes one, and an item of `matching_mi`'s support is a pair of the same and one of others.

Source: https://github.com/ys-zong/VL-ICL.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.core.errors import InvalidDatasetError, InvalidInputError
from app.method.backbone.examples import Episode, Example
from app.method.backbone.randomness import generator_for, sample_places
from app.method.evaluation.tasks.official import item_reader, read_json

SCORERS: Final[Mapping[str, str]] = {
    "open_mi": "vl-icl",
    "operator_induction": "vl-icl-number",
    "operator_induction_interleaved": "vl-icl-number",
    "clevr": "vl-icl",
    "textocr": "vl-icl",
    "matching_mi": "vl-icl-yes-no",
}
_PAIRS: Final = ("operator_induction_interleaved", "matching_mi")
"""Tasks that show two pictures at once."""
_PREFIX: Final = "vl-icl-"
_OPERATORS: Final = ("+", "-", "x")
_OPEN_QUESTION: Final = "This is a"


def find_task(spec: str) -> tuple[str, Path] | None:
    """The task and the folder that a text such as `vl-icl-open_mi:/data/vl-icl` means, if it does.

    Raises:
        InvalidInputError: There is no such task.
    """
    name, colon, folder = spec.partition(":")
    if not colon or not name.startswith(_PREFIX):
        return None
    return _known(name.removeprefix(_PREFIX)), Path(folder)


def _known(task: str) -> str:
    if task not in SCORERS:
        raise InvalidInputError(
            f"No such task with a text to answer: wanted {', '.join(SCORERS)}, found {task}"
        )
    return task


def load_episodes(
    folder: Path, task: str, *, shots: int, limit: int | None = None, seed: int = 0
) -> list[Episode]:
    """Queries of a task with the demonstrations that its rule gives them.

    Args:
        folder: Of the benchmark.
        task: A name of `SCORERS`; the other tasks want pictures made.
        shots: Demonstrations, of each of two classes in `open_mi`, and of each of two answers in
            `matching_mi`; 0 asks without any.
        limit: The most queries, chosen at random; None takes all.
        seed: Of both choices.

    Raises:
        NotFoundError: A file or a picture is missing.
        InvalidInputError: The task is not among them.
        InvalidDatasetError: A file has another layout, or fewer demonstrations than shots.
    """
    _known(task)
    queries = read_json(folder / task / "query.json", kind=list)
    support = read_json(folder / task / "support.json", kind=list)
    read_item = item_reader(folder)
    episodes = []
    for number in sample_places(len(queries), limit=limit, seed=seed):
        query = queries[number]
        rng = generator_for(seed, "vl-icl", number)
        try:
            demonstrations = _demonstrations(task, query, support, shots=shots, rng=rng)
            context = [
                _item(read_item, one, task=task, name=f"{task}/{number}/{i}")
                for i, one in enumerate(demonstrations)
            ]
            whole = {"question": _OPEN_QUESTION, **query}
            query_item = _item(read_item, whole, task=task, name=f"{task}/{number}")
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise InvalidDatasetError(
                f"Query {number} of {task} has another layout, or there are fewer than {shots} "
                f"demonstrations for it: {type(error).__name__} {error}"
            ) from error
        episodes.append(Episode(query=query_item, context=tuple(context)))
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
    if task == "matching_mi":
        return [one[kind] for one in chosen for kind in ("same", "diff")]
    if task.startswith("operator_induction"):
        place = _OPERATORS.index(query["operator"])
        return [{**one, "answer": one["answer"][place]} for one in chosen]
    return chosen


def _item(
    read_item: Callable[..., Example], entry: dict[str, Any], *, task: str, name: str
) -> Example:
    images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    wanted = 2 if task in _PAIRS else 1
    if len(images) != wanted:
        raise InvalidDatasetError(f"{name}: wanted pictures: {wanted}, found {len(images)}")
    return read_item(
        picture=images,
        question=entry["question"],
        answers=[str(entry["answer"])],
        name=name,
    )
