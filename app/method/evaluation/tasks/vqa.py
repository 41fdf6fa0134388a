"""VQAv2 and OK-VQA: questions in one file, ten answers each in another, pictures of COCO 2014.

Official names: `v2_OpenEnded_mscoco_SPLIT2014_questions.json` and
`v2_mscoco_SPLIT2014_annotations.json` (OK-VQA without `v2_`), pictures
`SPLIT2014/COCO_SPLIT2014_000000000042.jpg`. OK-VQA's `answer` is stemmed, `raw_answer` is not.

Source: https://visualqa.org and https://okvqa.allenai.org.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core.errors import InvalidDatasetError
from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import Entries, item_reader, read_json


def read_vqa(folder: Path, split: str, *, prefix: str) -> Entries:
    """Items of `train` or `val` from files whose names begin so; of OK-VQA the stemmed answers."""
    stem = f"mscoco_{split}2014"
    return read_joined(
        folder,
        questions=f"{prefix}OpenEnded_{stem}_questions.json",
        annotations=f"{prefix}{stem}_annotations.json",
        picture_of=lambda image: f"{split}2014/COCO_{split}2014_{int(image):012}.jpg",
    )


def read_joined(
    folder: Path, *, questions: str, annotations: str, picture_of: Callable[[Any], str]
) -> Entries:
    """Items of two files in the layout of VQA, which need not be in one order.

    `picture_of` is the path of a picture below the folder, from its `image_id`.
    """
    entries = read_json(folder / questions, kind=dict)
    answered = read_json(folder / annotations, kind=dict)
    question_of: dict[Any, str] = {}
    for entry in entries["questions"]:
        name, question = entry["question_id"], entry["question"]
        if question_of.setdefault(name, question) != question:
            raise InvalidDatasetError(
                f"{questions}: there are several questions of question_id {name}"
            )
    read_item = item_reader(folder)

    def make(entry: dict[str, Any]) -> Example:
        return read_item(
            picture=picture_of(entry["image_id"]),
            question=question_of[entry["question_id"]],
            answers=[answer["answer"] for answer in entry["answers"]],
            name=str(entry["question_id"]),
        )

    return answered["annotations"], make
