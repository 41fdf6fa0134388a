"""What names of files and folders say: splits, classes, and the VQA challenge's pairs of files.

Of a pair one file has the questions, the other the annotations; the pictures lie beside.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vlibrary_client.errors import InvalidDatasetError
from vlibrary_client.layouts.items import Record
from vlibrary_client.layouts.pictures import ListedPictures, files_below
from vlibrary_client.layouts.texts import array_values

QUESTIONS = re.compile(r"questions?(?=\.json$)", re.IGNORECASE)
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing|eval)(?:\d{4})?")
# As hubs name a split's files; one that was saved alone has no split.
_SHARD = re.compile(r"([\w.]+)-\d{5}-of-\d{5}(?:-\w+)?")
_OF_NO_SPLIT = "data"


def split_of(relative: Path) -> str | None:
    """The split that a file's name, or else the folder it lies in, speaks of."""
    shard = _SHARD.fullmatch(relative.stem)
    name = shard[1] if shard else relative.stem
    for part in (name, *reversed(relative.parts[:-1])):
        words = re.split(r"[^a-z0-9]+", part.lower())
        if match := next(filter(None, map(_SPLIT.fullmatch, words)), None):
            is_whole = part is not name or len(words) == 1
            return match[1] if is_whole or not shard else name
    return name if shard and name != _OF_NO_SPLIT else None


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
        name = unicodedata.normalize("NFC", path.parent.name)
        is_class = name and not _SPLIT.fullmatch(name.lower())
        yield Record(
            place=str(path),
            fields={"image": str(path), "answer": name},
            split=split_of(path.parent.parent),
            problem=None if is_class else "it lies in no folder that is called by a class",
        )


def question_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Files of questions with the files of their annotations.

    Raises:
        InvalidDatasetError: Questions have no annotations beside them.
    """
    pairs = []
    files = files_below(folder, "*.json")
    for questions in files:
        if not QUESTIONS.search(questions.name):
            continue
        annotations = _annotations(questions, files)
        if annotations is None:
            wanted = QUESTIONS.sub("annotations", questions.name)
            raise InvalidDatasetError(f"{questions.name}: its answers are missing: wanted {wanted}")
        pairs.append((questions, annotations))
    return pairs


def _annotations(questions: Path, files: Sequence[Path]) -> Path | None:
    """The file that is called after the questions: beside them, or the only one there is."""
    plain = QUESTIONS.sub("annotations", questions.name)
    # Questions are the same for both kinds of answers; annotations are not named after them.
    names = {plain, plain.replace("OpenEnded_", ""), plain.replace("MultipleChoice_", "")}
    found = [path for path in files if path.name in names]
    beside = sorted(path for path in found if path.parent == questions.parent)
    return beside[0] if beside else found[0] if len(found) == 1 else None


def pair_records(
    questions: Path, annotations: Path, *, root: Path, split: str | None
) -> Iterator[Record]:
    """One record for every annotation with its question, and for every question without one.

    Raises:
        InvalidDatasetError: A file cannot be read.
    """
    # None where nobody knows which of several questions is meant.
    question_of: dict[str | float | None, tuple[object, object] | None] = {}
    entries = array_values(questions, name=questions.name, key="questions")
    for number, entry in enumerate(entries):
        question_id = _id_of(entry)
        if question_id is None or not {"question", "image_id"} <= entry.keys():
            place = f"{questions.name} item {number}"
            problem = "wanted a question with its question_id and image_id"
            yield Record(place=place, fields={}, problem=problem)
            continue
        is_known = question_id in question_of
        question_of[question_id] = None if is_known else (entry["question"], entry["image_id"])
    pictures = ListedPictures(root)
    left = set(question_of)
    values = array_values(annotations, name=annotations.name, key="annotations")
    for number, entry in enumerate(values):
        place = f"{annotations.name} item {number}"
        question_id = _id_of(entry)
        left.discard(question_id)
        if (about := question_of.get(question_id)) is None:
            count = "are several questions" if question_id in question_of else "is no question"
            problem = f"there {count} of its question_id in {questions.name}"
            yield Record(place=place, fields={}, problem=problem)
            continue
        question, image_id = about
        found = pictures.numbered(image_id, split=split)
        if len(found) != 1:
            problem = _no_picture(image_id, found)
            yield Record(place=place, fields={}, problem=problem)
            continue
        shown = {"image": found[0], "image_id": image_id}
        asked = {"question": question, "id": entry["question_id"]}
        yield Record(place=place, fields={**entry, **shown, **asked})
    for question_id in question_of:
        if question_id in left:
            place = f"{questions.name} question {str(question_id)[:50]}"
            problem = f"it has no annotation in {annotations.name}"
            yield Record(place=place, fields={}, problem=problem)


def _id_of(entry: object) -> str | float | None:
    question_id = entry.get("question_id") if isinstance(entry, dict) else None
    return question_id if isinstance(question_id, str | int | float) else None


def _no_picture(image_id: object, found: list[str]) -> str:
    shown = str(image_id)[:50]
    if not found:
        return f"no picture in the folder ends in its image_id {shown}"
    return f"several pictures in the folder end in its image_id {shown}: {', '.join(found[:3])}"
