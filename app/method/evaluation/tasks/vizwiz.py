"""VizWiz-VQA: one list with question, picture and ten answers each.

Official names: `SPLIT.json` (or `Annotations/SPLIT.json`) and pictures `SPLIT/VizWiz_val_*.jpg`. Of
questions that cannot be answered the answers say `unanswerable` or `unsuitable`; they count. Copies
in the layout of VQA (`SPLIT_questions_vqa_format.json`, `SPLIT_annotations_vqa_format.json`, whose
`image_id` is the picture's name) are read where they lie instead.

Source: https://vizwiz.org/tasks-and-datasets/vqa.
"""

from pathlib import Path
from typing import Any

from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import Entries, item_reader, read_json
from app.method.evaluation.tasks.vqa import read_joined


def read_vizwiz(folder: Path, split: str) -> Entries:
    """Items of `train` or `val`; the answers of `test` are not public."""
    questions = f"{split}_questions_vqa_format.json"
    if (folder / questions).is_file():
        return read_joined(
            folder,
            questions=questions,
            annotations=f"{split}_annotations_vqa_format.json",
            picture_of=lambda image: f"{split}/{image}",
        )
    beside = folder / "Annotations" / f"{split}.json"
    path = beside if beside.is_file() else folder / f"{split}.json"
    read_item = item_reader(folder)

    def make(entry: dict[str, Any]) -> Example:
        name = str(entry["image"])
        return read_item(
            picture=f"{split}/{name}",
            question=entry["question"],
            answers=[answer["answer"] for answer in entry["answers"]],
            name=name,
        )

    return read_json(path, kind=list), make
