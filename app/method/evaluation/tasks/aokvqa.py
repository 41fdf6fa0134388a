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

    return _entries(folder, split), _maker(folder, split, read)


def read_aokvqa_da(folder: Path, split: str) -> Entries:
    """Questions with their ten direct answers, difficult ones left out."""

    def read(entry: dict[str, Any]) -> tuple[str, list[str]]:
        return entry["question"], entry["direct_answers"]

    entries = [one for one in _entries(folder, split) if not one.get("difficult_direct_answer")]
    return entries, _maker(folder, split, read)


def _entries(folder: Path, split: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(folder / f"aokvqa_v1p0_{split}.json", kind=list)
    return found


def _maker(
    folder: Path, split: str, read: Callable[[dict[str, Any]], tuple[str, list[str]]]
) -> Callable[[dict[str, Any]], Example]:
    read_item = item_reader(folder)

    def make(entry: dict[str, Any]) -> Example:
        question, answers = read(entry)
        return read_item(
            picture=f"{split}2017/{int(entry['image_id']):012}.jpg",
            question=question,
            answers=answers,
            name=str(entry["question_id"]),
        )

    return make
