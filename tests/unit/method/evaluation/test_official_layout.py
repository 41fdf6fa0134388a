"""Files that are called like a benchmark's, and are not as its makers publish them."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidDatasetError
from app.method.evaluation.tasks.loading import load_examples
from tests.fakes.files import official

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
TWICE = [{"question_id": 42000, "question": text} for text in ("What is this?", "What else?")]
ANSWERED = {"question_id": 42000, "image_id": 42, "answers": [{"answer": "net"}]}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (QUESTIONS, {}, "Its files have another layout: KeyError 'questions'"),
        (QUESTIONS, {"questions": [1]}, "Its files have another layout: TypeError"),
        (QUESTIONS, {"questions": TWICE}, "there are several questions of question_id 42000"),
        (ANNOTATIONS, {}, "Its files have another layout: KeyError 'annotations'"),
        (
            ANNOTATIONS,
            {"annotations": [ANSWERED, {**ANSWERED, "image_id": "one"}]},
            "Entry 1 has another layout: ValueError",
        ),
    ],
)
def test_another_layout_is_told(
    tmp_path: Path, name: str, *, content: dict[str, Any], words: str
) -> None:
    official.vqa_files(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InvalidDatasetError, match=words):
        load_examples(f"vqav2:{tmp_path}", split="val")


def test_entries_that_are_no_objects_are_told(tmp_path: Path) -> None:
    (tmp_path / "aokvqa_v1p0_val.json").write_text("[5]")
    with pytest.raises(InvalidDatasetError, match="Its files have another layout"):
        load_examples(f"aokvqa-da:{tmp_path}", split="val")
