"""The VQA challenge's pairs of files: questions in one, annotations in another, pictures beside."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.items import Record
from vlibrary_client.layouts.texts import array_values

_QUESTIONS = re.compile(r"questions?(?=\.json$)", re.IGNORECASE)
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def question_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Files of questions with the files of their annotations.

    Raises:
        InvalidDatasetError: Questions have no annotations beside them.
    """
    pairs = []
    for questions in sorted(folder.rglob("*.json")):
        if not _QUESTIONS.search(questions.name):
            continue
        annotations = _annotations(questions)
        if annotations is None:
            wanted = _QUESTIONS.sub("annotations", questions.name)
            raise InvalidDatasetError(f"{questions.name}: its answers are missing: wanted {wanted}")
        pairs.append((questions, annotations))
    return pairs


def _annotations(questions: Path) -> Path | None:
    plain = _QUESTIONS.sub("annotations", questions.name)
    # Questions are the same for both kinds of answers; annotations are not named after them.
    names = {plain, plain.replace("OpenEnded_", ""), plain.replace("MultipleChoice_", "")}
    return next(
        (path for name in sorted(names) if (path := questions.with_name(name)).exists()), None
    )


def pair_records(
    questions: Path, annotations: Path, *, root: Path, split: str | None
) -> Iterator[Record]:
    """One record for every annotation, with the question it belongs to.

    Raises:
        InvalidDatasetError: A file cannot be read.
    """
    asked = {
        entry["question_id"]: (entry["question"], entry["image_id"])
        for entry in array_values(questions, name=questions.name, key="questions")
        if isinstance(entry, dict) and {"question_id", "question", "image_id"} <= set(entry)
    }
    pictures = _numbered_pictures(root, split)
    values = array_values(annotations, name=annotations.name, key="annotations")
    for number, entry in enumerate(values):
        place = f"{annotations.name} item {number}"
        if not isinstance(entry, dict) or entry.get("question_id") not in asked:
            problem = f"there is no question of its question_id in {questions.name}"
            yield Record(place=place, fields={}, problem=problem, split=split)
            continue
        question, image_id = asked[entry["question_id"]]
        found = _picture(pictures, image_id)
        if found is None:
            problem = f"no picture in the folder ends in its image_id {str(image_id)[:50]}"
            yield Record(place=place, fields={}, problem=problem, split=split)
            continue
        fields: dict[str, Any] = {
            "image": found,
            "question": question,
            "answers": entry.get("answers"),
            "answer": entry.get("multiple_choice_answer"),
            "id": entry["question_id"],
            "image_id": image_id,
        }
        yield Record(place=place, fields=fields, split=split)


def _numbered_pictures(root: Path, split: str | None) -> dict[str, str]:
    """Pictures by the last number in their name; those of the split's folder win."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in _PICTURES:
            continue
        name = str(path.relative_to(root))
        is_of_split = split is not None and split in name.lower()
        for key in {path.stem, *_last_number(path.stem)}:
            if is_of_split or key not in found:
                found[key] = name
    return found


def _last_number(stem: str) -> list[str]:
    match = _LAST_NUMBER.search(stem)
    return [] if match is None else [str(int(match.group(1)))]


def _picture(pictures: dict[str, str], image_id: object) -> str | None:
    text = str(image_id)
    return pictures.get(text) or pictures.get(Path(text).stem)
