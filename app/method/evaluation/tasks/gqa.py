"""GQA: an object from question ids to questions, pictures of Visual Genome.

Official names: `SPLIT_questions.json`, where a split is `testdev_balanced`, `val_balanced` and so
on, and pictures `images/IMAGEID.jpg`; an `imageId` is a number or begins with `n`.

Source: https://cs.stanford.edu/people/dorarad/gqa.
"""

from pathlib import Path
from typing import Any

from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import Entries, item_reader, read_json


def read_gqa(folder: Path, split: str) -> Entries:
    """Items of a split."""
    questions = read_json(folder / f"{split}_questions.json", kind=dict)
    read_item = item_reader(folder)

    def make(entry: tuple[str, dict[str, Any]]) -> Example:
        name, fields = entry
        return read_item(
            picture=f"images/{fields['imageId']}.jpg",
            question=fields["question"],
            answers=[fields["answer"]],
            name=name,
        )

    return list(questions.items()), make
