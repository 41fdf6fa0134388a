"""Miniature copies of benchmarks, in the exact layout of their official files."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(color: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (color, 40, 90)).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content: Any) -> None:  # noqa: ANN401 - JSON or bytes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def ten(*answers: str) -> list[dict[str, Any]]:
    """Ten annotators who repeat these answers in turn."""
    return [
        {"answer": answers[n % len(answers)], "answer_confidence": "yes", "answer_id": n + 1}
        for n in range(10)
    ]


def vqa_files(folder: Path, *, prefix: str = "v2_", raw: bool = False) -> Path:
    """Two questions about one picture of COCO 2014; the files are in different orders."""
    answers = {42000: ten("net", "net", "racket"), 42001: ten("2")}
    if raw:
        answers[42000] = [{**one, "raw_answer": f"{one['answer']}s"} for one in answers[42000]]
    asked = [
        {"image_id": 42, "question": "What is this?", "question_id": 42000},
        {"image_id": 42, "question": "How many?", "question_id": 42001},
    ]
    annotated = [
        {
            "question_type": "what is", "multiple_choice_answer": found[0]["answer"],
            "answers": found, "image_id": 42, "answer_type": "other", "question_id": name,
        }
        for name, found in reversed(answers.items())
    ]  # fmt: skip
    info: dict[str, Any] = {"info": {}, "license": {}, "data_subtype": "val2014"}
    stem = "mscoco_val2014"
    write(
        folder / f"{prefix}OpenEnded_{stem}_questions.json",
        {**info, "task_type": "Open-Ended", "data_type": "mscoco", "questions": asked},
    )
    write(folder / f"{prefix}{stem}_annotations.json", {**info, "annotations": annotated})
    write(folder / "val2014" / "COCO_val2014_000000000042.jpg", picture(10))
    return folder


def vizwiz_files(folder: Path, *, in_folder: bool = False) -> Path:
    entries = [
        {
            "image": f"VizWiz_val_0000000{n}.jpg", "question": "What is this?",
            "answers": [
                {"answer": answer["answer"], "answer_confidence": "maybe"} for answer in answers
            ],
            "answer_type": kind, "answerable": int(kind != "unanswerable"),
        }
        for n, (kind, answers) in enumerate(
            (("other", ten("soup", "can")), ("unanswerable", ten("unsuitable")))
        )
    ]  # fmt: skip
    write(folder / ("Annotations/val.json" if in_folder else "val.json"), entries)
    for n in range(2):
        write(folder / "val" / f"VizWiz_val_0000000{n}.jpg", picture(20 + n))
    return folder


def vizwiz_as_vqa(folder: Path) -> Path:
    """The same as people convert it, in two files; the pictures are the official ones."""
    entries = json.loads((vizwiz_files(folder) / "val.json").read_text())
    (folder / "val.json").unlink()
    asked = [
        {"image_id": one["image"], "question": one["question"], "question_id": n}
        for n, one in enumerate(entries)
    ]
    annotated = [
        {"image_id": one["image"], "question_id": n, "answers": one["answers"]}
        for n, one in enumerate(entries)
    ]
    write(folder / "val_questions_vqa_format.json", {"questions": asked})
    write(folder / "val_annotations_vqa_format.json", {"annotations": annotated[::-1]})
    return folder


def gqa_files(folder: Path) -> Path:
    questions = {
        name: {
            "semantic": [], "entailed": [], "equivalent": [], "question": question,
            "imageId": image, "isBalanced": True, "groups": {"global": None, "local": "a"},
            "answer": answer, "semanticStr": "", "annotations": {}, "types": {},
            "fullAnswer": f"{answer}.",
        }
        for name, question, image, answer in (
            ("201307251", "Is it overcast?", "n161313", "no"),
            ("05515938", "What is this?", "2405722", "pipe"),
        )
    }  # fmt: skip
    write(folder / "testdev_balanced_questions.json", questions)
    for image in ("n161313", "2405722"):
        write(folder / "images" / f"{image}.jpg", picture(30))
    return folder


def aokvqa_files(folder: Path) -> Path:
    entries = [
        {
            "split": "val", "image_id": 299207, "question_id": name,
            "question": "What is he doing?", "choices": ["running", "waiting", "eating", "flying"],
            "correct_choice_idx": 1,
            "direct_answers": ["waiting"] * 2 + ["standing"] * 4 + ["Waiting"] + ["idle"] * 3,
            "difficult_direct_answer": is_difficult, "rationales": ["a", "b", "c"],
        }
        for name, is_difficult in (("22easy", False), ("22hard", True))
    ]  # fmt: skip
    write(folder / "aokvqa_v1p0_val.json", entries)
    unanswered = [
        {
            key: entries[0][key]
            for key in ("split", "image_id", "question_id", "question", "choices")
        }
    ]
    write(folder / "aokvqa_v1p0_test.json", unanswered)
    write(folder / "val2017" / "000000299207.jpg", picture(40))
    write(folder / "test2017" / "000000299207.jpg", picture(40))
    return folder


def cvqa_files(
    folder: Path, *, count: int = 12, label: int = 2, pictures: Iterable[bytes | None] | None = None
) -> Path:
    """Two files; without other pictures, each is that of two rows."""
    shown = pictures or (picture(5 * (n // 2), "PNG") for n in range(count))
    rows = [
        {
            "image": {"bytes": image, "path": f"{n}.png"}, "ID": f"id_{n}",
            "Subset": "('Swahili', 'Kenya')", "Question": "Hii ni nini?",
            "Translated Question": "What is this?", "Options": ["a", "b", "c", "d"],
            "Translated Options": ["tea", "milk", "ugali", "rice"], "Label": label,
            "Category": "Cooking and food", "Image Type": "Self", "Image Source": "Self",
            "License": "CC BY-SA",
        }
        for n, image in enumerate(shown)
    ]  # fmt: skip
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part, half in enumerate((rows[: count // 2], rows[count // 2 :])):
        path = folder / "data" / f"test-0000{part}-of-00002.parquet"
        # As Hugging Face writes pictures: a few to a group, which has a dictionary of them.
        pq.write_table(pa.Table.from_pylist(half), path, row_group_size=20)
    return folder


def vl_icl_files(folder: Path) -> Path:
    names = ("dax", "blicket", "perpo")
    query = {
        "image": ["open_mi/q.jpg"], "question": "This is a", "answer": "dax",
        "classes": list(names),
        "support": {
            name: {"images": [f"open_mi/{name}{n}.jpg" for n in range(3)]} for name in names
        },
    }  # fmt: skip
    write(folder / "open_mi" / "query.json", [query])
    write(folder / "open_mi" / "support.json", [])
    write(folder / "open_mi" / "q.jpg", picture(1))
    for place, name in enumerate(names):
        for n in range(3):
            write(folder / "open_mi" / f"{name}{n}.jpg", picture(50 + 9 * place + n))
    asked = "What is the result of the following mathematical expression?"
    operator = "operator_induction"
    write(
        folder / operator / "query.json",
        [
            {"id": "q", "image": [f"{operator}/q.jpg"], "question": asked, "answer": -1,
             "operator": "-"},
        ],
    )  # fmt: skip
    write(
        folder / operator / "support.json",
        [
            {"id": str(n), "image": [f"{operator}/{n}.jpg"], "question": asked,
             "answer": [n + 2, n - 2, 2 * n]}
            for n in range(4)
        ],
    )  # fmt: skip
    for name in ("q", "0", "1", "2", "3"):
        write(folder / operator / f"{name}.jpg", picture(90))
    vl_icl_pairs(folder)
    return folder


def vl_icl_pairs(folder: Path) -> None:
    """The tasks that show two pictures at once."""
    operator, matching = "operator_induction_interleaved", "matching_mi"

    def digits(one: int, other: int, answer: object, **more: str) -> dict[str, object]:
        images = [f"{operator}/{one}.jpg", f"{operator}/{other}.jpg"]
        return {"image": images, "question": "What is the result?", "answer": answer, **more}

    write(folder / operator / "query.json", [digits(1, 2, 2, operator="x")])
    write(
        folder / operator / "support.json",
        [digits(n, 2, [n + 2, n - 2, 2 * n]) for n in range(3)],
    )
    for n in range(3):
        write(folder / operator / f"{n}.jpg", picture(100 + n))

    def pair(one: str, other: str, answer: str) -> dict[str, object]:
        images = [f"{matching}/{one}.jpg", f"{matching}/{other}.jpg"]
        return {"image": images, "question": "Do they match?", "answer": answer}

    write(folder / matching / "query.json", [pair("a", "b", "No")])
    write(
        folder / matching / "support.json",
        [{"same": pair("a", "a", "Yes"), "diff": pair("a", other, "No")} for other in "bc"],
    )
    for place, name in enumerate("abc"):
        write(folder / matching / f"{name}.jpg", picture(120 + place))
