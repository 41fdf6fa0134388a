"""One JSON object a line, with a picture file beside it.

Knows the line format: `image` (a path relative to the file, or `file_name`), `question`, `answer`
or `answers`, and optionally `id`, `image_id` and `split`.
"""

import json
from pathlib import Path
from typing import Any

from app.core.errors import InvalidDatasetError
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.pictures import read_picture
from app.method.evaluation.tasks.records import make_example, sample_places


def load_jsonl(path: Path, *, split: str, limit: int | None, seed: int) -> list[Example]:
    """Items of a file; records that name another split are left out.

    Args:
        path: The file.
        split: Wanted where records name one.
        limit: The most items, chosen at random; None takes all.
        seed: Of the choice.

    Raises:
        InvalidDatasetError: A line is no record, or a field is missing.
        InvalidImageError: A picture cannot be read.
    """
    records = [
        (number, record)
        for number, record in enumerate(_read_lines(path), start=1)
        if record.get("split", split) == split
    ]
    pictures = {}
    examples = []
    for place in sample_places(len(records), limit=limit, seed=seed):
        number, record = records[place]
        name = _picture_name(record, number)
        if name not in pictures:
            pictures[name] = read_picture(path.parent / name)
        examples.append(
            make_example(record, item=f"line-{number}", image=pictures[name], image_id=name)
        )
    return examples


def _read_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                record = json.loads(line) if line.strip() else None
                if record is not None and not isinstance(record, dict):
                    raise InvalidDatasetError(
                        f"{path.name}, line {number}: wanted a JSON object, "
                        f"found {type(record).__name__}"
                    )
                records.append(record or {})
    except (OSError, ValueError) as error:
        raise InvalidDatasetError(
            f"{path.name} cannot be read: wanted one JSON object a line",
            details={"reason": type(error).__name__},
        ) from error
    return [record for record in records if record]


def _picture_name(record: dict[str, Any], number: int) -> str:
    name = record.get("image") or record.get("file_name")
    if not isinstance(name, str):
        raise InvalidDatasetError(f"Line {number}: wanted the path of an image, found none")
    return name
