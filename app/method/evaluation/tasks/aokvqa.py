"""A-OKVQA: one list with four choices and ten direct answers each, pictures of COCO 2017.

Official names: `aokvqa_v1p0_SPLIT.json` and pictures `SPLIT2017/000000299207.jpg`. The setting of
direct answers leaves out what is marked `difficult_direct_answer`, multiple choice does not.

Source: https://github.com/allenai/aokvqa.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import Entries, item_reader, read_json


def read_aokvqa_mc(folder: Path, split: str) -> Entries:
    """Questions with their choices behind them; the answer is the right choice's text."""

    def read(entry: dict[str, Any]) -> tuple[str, list[str]]:
        choices = entry["choices"]
        question = f"{entry['question']} Choices: {', '.join(choices)}."
        return question, [choices[entry["correct_choice_idx"]]]

    return _read(folder, split, read)


def read_aokvqa_da(folder: Path, split: str) -> Entries:
    """Questions with their ten direct answers, difficult ones left out."""
    entries, make = _read(folder, split, lambda one: (one["question"], one["direct_answers"]))
    return [one for one in entries if not one.get("difficult_direct_answer")], make


def _read(
    folder: Path, split: str, read: Callable[[dict[str, Any]], tuple[str, list[str]]]
) -> Entries:
    read_item = item_reader(folder)

    def make(entry: dict[str, Any]) -> Example:
        question, answers = read(entry)
        return read_item(
            picture=f"{split}2017/{int(entry['image_id']):012}.jpg",
            question=question,
            answers=answers,
            name=str(entry["question_id"]),
        )

    return read_json(folder / f"aokvqa_v1p0_{split}.json", kind=list), make
