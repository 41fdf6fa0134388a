"""Items in the layouts that people have, read as the SDK reads them."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlibrary_client.layouts.items import Found, Item
from vlibrary_client.layouts.sources import DatasetSource, open_source

ASKED = {"question": "What colour?", "answer": "red"}


def picture(shade: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def read(source: DatasetSource, **options: Any) -> list[Found]:  # noqa: ANN401 - passed on
    return list(open_source(source, **options).found)


def items(source: DatasetSource, **options: Any) -> list[Item]:  # noqa: ANN401 - passed on
    found = read(source, **options)
    assert all(isinstance(one, Item) for one in found), found
    return [one for one in found if isinstance(one, Item)]


def table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def vqa_folder(root: Path) -> Path:
    questions = {
        "info": {},
        "questions": [
            {"image_id": 9, "question": "What colour?", "question_id": 90},
            {"image_id": 7, "question": "Where?", "question_id": 70},
        ],
    }
    annotations = {
        "annotations": [
            {
                "question_id": 90,
                "image_id": 9,
                "multiple_choice_answer": "red",
                "answers": [{"answer": "red", "answer_confidence": "yes"}] * 2,
            },
            {"question_id": 70, "image_id": 7, "answers": [{"answer": "here"}]},
            {"question_id": 1, "image_id": 9, "answers": [{"answer": "lost"}]},
        ]
    }
    name = "v2_OpenEnded_mscoco_train2014_questions.json"
    (root / name).write_text(json.dumps(questions))
    (root / "v2_mscoco_train2014_annotations.json").write_text(json.dumps(annotations))
    (root / "train2014").mkdir()
    (root / "train2014" / "COCO_train2014_000000000009.jpg").write_bytes(picture(kind="JPEG"))
    return root
