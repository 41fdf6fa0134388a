import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.core.errors import (
    ConfigurationError,
    InvalidDatasetError,
    InvalidImageError,
    InvalidInputError,
    NotFoundError,
)
from app.core.pixels import decode
from app.method.evaluation.tasks.loading import load_examples
from app.method.evaluation.tasks.pictures import read_picture


def png(color: str, *, size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


def write_jsonl(folder: Path, *records: object, name: str = "data.jsonl") -> Path:
    for color in ("red", "blue"):
        (folder / f"{color}.png").write_bytes(png(color))
    path = folder / name
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n\n")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


RED = {"image": "red.png", "question": "which colour?", "answer": "red"}
BLUE = {"file_name": "blue.png", "question": "which?", "answers": ["blue", "navy", "blue"]}
ROWS = [
    {
        "image": {"bytes": png(color), "path": f"{color}.png"},
        "question": f"is number {index} {color}?",
        "answers": ["yes", "yes", "no"],
        "split": split,
    }
    for index, (color, split) in enumerate(
        [("red", "train"), ("red", "train"), ("blue", "train"), ("blue", "test")]
    )
]


def test_jsonl_reads_pictures_beside_it(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, RED, {**RED, "id": "mine"}, BLUE)
    first, second, third = load_examples(str(path))
    assert first.pictures[0].data == png("red")
    assert (first.id, second.id, third.id) == ("line-1", "mine", "line-3")
    assert first.image is second.image
    assert first.image_id == second.image_id != third.image_id
    assert third.answer == "blue"


def test_jsonl_records_of_another_split_are_left_out(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, {**RED, "split": "test"}, BLUE)
    assert [example.answer for example in load_examples(str(path))] == ["blue"]
    assert [example.answer for example in load_examples(str(path), split="test")] == ["red", "blue"]


def test_parquet_in_the_hugging_face_layout(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data.parquet", ROWS)
    examples = load_examples(str(path))
    assert [example.question[:11] for example in examples] == [
        "is number 0",
        "is number 1",
        "is number 2",
    ]
    assert examples[0].image_id == examples[1].image_id != examples[2].image_id
    assert examples[0].image is examples[1].image
    assert examples[0].answers == ("yes", "yes", "no")
    assert len(load_examples(str(path), split="test")) == 1


def test_parquet_with_single_answers_ids_and_bare_bytes(tmp_path: Path) -> None:
    rows = [{"image": png("red"), "question": "q", "answer": "a", "id": 7, "image_id": 3}]
    example = load_examples(str(write_parquet(tmp_path / "x.parquet", rows)))[0]
    assert (example.id, example.image_id, example.answers) == ("7", "3", ("a",))


def test_a_folder_is_searched_for_the_split(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000.parquet", ROWS[:1])
    write_parquet(tmp_path / "train-00001.parquet", ROWS[1:3])
    write_parquet(tmp_path / "test-00000.parquet", ROWS[3:])
    assert len(load_examples(str(tmp_path))) == 3
    assert len(load_examples(str(tmp_path), split="test")) == 1
    write_jsonl(tmp_path, RED, name="train.jsonl")
    assert load_examples(str(tmp_path))[0].answer == "red"


def test_a_limit_chooses_at_random_by_seed(tmp_path: Path) -> None:
    path = str(write_jsonl(tmp_path, *[{**RED, "id": str(n)} for n in range(50)]))
    chosen = [example.id for example in load_examples(path, limit=5, seed=1)]
    assert len(set(chosen)) == 5
    assert chosen == [example.id for example in load_examples(path, limit=5, seed=1)]
    assert chosen != [example.id for example in load_examples(path, limit=5, seed=2)]
    assert len(load_examples(path, limit=500)) == 50


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**RED, "question": 3}, "wanted a question as text, found int"),
        ({"image": "red.png", "question": "q"}, "wanted answer or answers"),
        ({**RED, "answer": ["a", 2]}, "wanted answer or answers"),
        ({"question": "q", "answer": "a"}, "wanted the path of an image"),
        ([1, 2], "wanted a JSON object, found list"),
    ],
)
def test_broken_records_are_refused(record: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        load_examples(str(write_jsonl(tmp_path, record)))


def test_broken_files_are_refused(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", b"{no json"), ("b.parquet", b"PAR1nonsense"), ("c.csv", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidDatasetError):
            load_examples(str(tmp_path / name))
    missing = write_parquet(tmp_path / "d.parquet", [{"question": "q", "answer": "a"}])
    with pytest.raises(InvalidDatasetError, match="wanted the bytes of an image"):
        load_examples(str(missing))


def test_missing_empty_and_ambiguous_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        load_examples(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidDatasetError, match="No data set in the folder"):
        load_examples(str(tmp_path))
    write_jsonl(tmp_path, {**RED, "split": "test"}, name="x.jsonl")
    with pytest.raises(InvalidDatasetError, match="no items in split train"):
        load_examples(str(tmp_path))
    write_jsonl(tmp_path, RED, name="y.jsonl")
    with pytest.raises(InvalidDatasetError, match="Which file is meant"):
        load_examples(str(tmp_path))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_become_rgb(kind: str) -> None:
    assert decode(read_picture(png("red", kind=kind)).data).size == (8, 6)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", png("red")[:-30], png("red", kind="GIF"), png("red", size=(5001, 4000))],
    ids=["empty", "nonsense", "truncated", "other format", "too large"],
)
def test_pictures_that_cannot_be_used_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        read_picture(data)


def test_easy_vqa_keeps_pictures_of_splits_apart() -> None:
    training = load_examples("easy-vqa", limit=40, seed=1)
    test = load_examples("easy-vqa", split="test", limit=20)
    assert len(training) == 40
    assert training[0].pictures[0].size == (64, 64)
    assert {example.answer for example in training} <= EASY_VQA_ANSWERS
    assert not {e.image_id for e in training} & {e.image_id for e in test}
    with pytest.raises(InvalidInputError, match="wanted train, fit, validation, test"):
        load_examples("easy-vqa", split="holdout")


EASY_VQA_ANSWERS = {
    *("circle", "rectangle", "triangle", "yes", "no"),
    *("red", "green", "blue", "black", "brown", "teal", "gray", "yellow"),
}


def test_recipes_are_chosen_on_training_pictures_that_nothing_is_fitted_to() -> None:
    fit, validation = (
        {example.image_id for example in load_examples("easy-vqa", split=split, limit=3000)}
        for split in ("fit", "validation")
    )
    assert not fit & validation
    assert len(validation) > 700
    # The same picture goes by one name, whichever part it is read through.
    assert fit | validation <= {one.image_id for one in load_examples("easy-vqa")}


def test_without_the_package_easy_vqa_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ConfigurationError, match="the package easy-vqa"):
        load_examples("easy-vqa")


def test_readers_load_no_torch() -> None:
    code = (
        "import app.method.evaluation.tasks.loading, app.method.evaluation.metrics, sys;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
