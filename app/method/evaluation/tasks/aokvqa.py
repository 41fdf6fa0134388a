"""A-OKVQA: one list with four choices and ten direct answers each, pictures of COCO 2017.

Official names: `aokvqa_v1p0_SPLIT.json` and pictures `SPLIT2017/000000299207.jpg`. The setting of
direct answers leaves out what is marked `difficult_direct_answer`, multiple choice does not.

Source: https://github.com/allenai/aokvqa.
"""

from pathlib import Path
from typing import Any

from app.method.backbone.examples import Example
from app.method.evaluation.tasks.official import item_reader, read_json, read_some


def load_aokvqa_mc(folder: Path, *, split: str, limit: int | None, seed: int) -> list[Example]:
    """Questions with their choices behind them; the answer is the right choice's text.

    Raises:
        NotFoundError: A file or a picture is missing.
        InvalidDatasetError: A file has another layout, or no answers (`test`).
    """

    def read(entry: dict[str, Any]) -> tuple[str, list[str]]:
        choices = entry["choices"]
        question = f"{entry['question']} Choices: {', '.join(choices)}."
        return question, [choices[entry["correct_choice_idx"]]]

    entries = _entries(folder, split)
    return _items(folder, entries, split=split, read=read, limit=limit, seed=seed)


def load_aokvqa_da(folder: Path, *, split: str, limit: int | None, seed: int) -> list[Example]:
    """Questions with their ten direct answers, difficult ones left out.

    Raises:
        NotFoundError: A file or a picture is missing.
        InvalidDatasetError: A file has another layout, or no answers (`test`).
    """
    entries = [one for one in _entries(folder, split) if not one.get("difficult_direct_answer")]

    def read(entry: dict[str, Any]) -> tuple[str, list[str]]:
        return entry["question"], entry["direct_answers"]

    return _items(folder, entries, split=split, read=read, limit=limit, seed=seed)


def _entries(folder: Path, split: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(folder / f"aokvqa_v1p0_{split}.json", kind=list)
    return found


def _items(
    folder: Path,
    entries: list[dict[str, Any]],
    *,
    split: str,
    read: Any,  # noqa: ANN401 - from an entry to question and answers
    limit: int | None,
    seed: int,
) -> list[Example]:
    read_item = item_reader(folder)

    def make(entry: dict[str, Any]) -> Example:
        question, answers = read(entry)
        return read_item(
            picture=f"{split}2017/{int(entry['image_id']):012}.jpg",
            question=question,
            answers=answers,
            name=str(entry["question_id"]),
        )

    return read_some(entries, make, limit=limit, seed=seed)
