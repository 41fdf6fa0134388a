"""Data sets as they lie on disks and hubs are one kind of item, or are refused by their place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes.files.layouts import ASKED, items, picture, read, table, vqa_folder
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts import texts
from vlibrary_client.layouts.folders import split_of
from vlibrary_client.layouts.items import BadItem, Item
from vlibrary_client.layouts.sources import open_upload


def test_a_line_that_is_no_object_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "q", "answer": "a"}\n{\n\xff\n[1]\n')
    found = read(tmp_path / "a.jsonl")
    assert [one.place for one in found] == [f"a.jsonl line {number}" for number in (1, 2, 3, 4)]
    assert [isinstance(one, BadItem) for one in found] == [False, True, True, True]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_map_that_no_record_of_text_follows_is_refused(tmp_path: Path, name: str) -> None:
    rows = [{**ASKED, "uid": 1}, ASKED]
    lines = "\n".join(map(json.dumps, rows)) if name == "a.jsonl" else json.dumps(rows)
    (tmp_path / name).write_text(lines)
    assert [one.id for one in items(tmp_path / name, columns={"id": "uid"})] == ["1", None]
    words = r"there is no column part; found the columns question, answer, uid"
    for target in ("split", "question"):
        with pytest.raises(InvalidDatasetError, match=words):
            read(tmp_path / name, columns={target: "part"})
    with pytest.raises(
        InvalidDatasetError, match="cannot map frage: wanted one of image, question"
    ):
        read(tmp_path / name, columns={"frage": "question"})


def test_a_json_array_is_read_one_object_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "_CHUNK_CHARACTERS", 7)
    path = tmp_path / "llava.json"
    path.write_text(json.dumps([{**ASKED, "id": str(number)} for number in range(5)], indent=1))
    assert [one.id for one in items(path)] == ["0", "1", "2", "3", "4"]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(
        InvalidDatasetError, match=r"llava\.json: its array is damaged or cut short"
    ):
        read(path)


def test_parquet_columns_may_be_of_any_kind_of_text(tmp_path: Path) -> None:
    rows = {
        "image": pa.array([picture()] * 2, pa.large_binary()),
        "question": pa.array(["q", "q"]).dictionary_encode(),
        "answer": pa.array(["a", "b"], pa.large_string()),
        "split": pa.array(["train", "test"]),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(rows), path)
    assert [(one.answers, one.split) for one in items(path)] == [
        (("a",), "train"),
        (("b",), "test"),
    ]


def test_class_labels_are_named_as_hugging_face_names_them(tmp_path: Path) -> None:
    features = {"answer": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("question", pa.string()), ("answer", pa.int64())], metadata=metadata)
    rows = [{"question": "q", "answer": answer} for answer in (1, 0, -1)]
    found = read(table(tmp_path / "a.parquet", rows, schema))
    assert [one.answers for one in found if isinstance(one, Item)] == [("dog",), ("cat",)]
    assert isinstance(found[2], BadItem)


def test_class_labels_may_be_named_in_a_file_beside_the_data(tmp_path: Path) -> None:
    features = {"answer": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "question": {}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": features}))
    table(tmp_path / "train.parquet", [{"question": "q", "answer": answer} for answer in (1, 0)])
    assert [one.answers for one in items(tmp_path)] == [("dog",), ("cat",)]


@pytest.mark.parametrize("open_writer", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_files_and_streams(tmp_path: Path, open_writer: Callable[..., Any]) -> None:
    rows = pa.table(
        {
            "image": pa.array([{"bytes": picture(), "path": "a.png"}] * 40),
            "question": pa.array(["q"] * 40, pa.string_view()),
            "answer": pa.array(range(40)),
        }
    )
    path = tmp_path / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as sink, open_writer(sink, rows.schema) as writer:
        writer.write_table(rows)
    assert [one.answers[0] for one in items(path)] == [str(number) for number in range(40)]
    assert len(list(open_upload(path).found)) == 40


def test_files_of_a_folder_are_read_as_one_with_splits_by_their_names(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        table(tmp_path / f"{name}.parquet", [{"image": picture(), **ASKED}])
    assert [(one.place, one.split) for one in items(tmp_path)] == [
        ("test-00000-of-00001.parquet row 0", "test"),
        ("train-00000-of-00002.parquet row 0", "train"),
        ("train-00001-of-00002.parquet row 0", "train"),
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/testmini-00000-of-00001.parquet", "testmini"),
        ("data/test_seen-00000-of-00002-6cb6b8c4d0d2a3c7.parquet", "test_seen"),
        ("train2014-00000-of-00001.parquet", "train"),
        ("vqa/sets-train-00000-of-00004.arrow", "train"),
        ("val/part-00000-of-00002.parquet", "val"),
        ("data-00000-of-00001.arrow", None),
    ],
)
def test_shards_are_named_after_their_split_as_hubs_name_them(name: str, split: str | None) -> None:
    assert split_of(Path(name)) == split


def test_parts_of_a_set_that_was_saved_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["seen", "test_unseen"]}')
    for name in ("seen", "test_unseen"):
        (tmp_path / name).mkdir()
        table(tmp_path / name / "data-00000-of-00001.parquet", [{"image": picture(), **ASKED}])
    assert [one.split for one in items(tmp_path)] == ["seen", "test_unseen"]
    assert [one.split for one in items(tmp_path / "seen")] == [None]


def test_questions_and_annotations_of_the_vqa_challenge_are_joined(tmp_path: Path) -> None:
    first, second, third = read(vqa_folder(tmp_path))
    assert isinstance(first, Item)
    assert (first.question, first.answers, first.split) == ("What colour?", ("red", "red"), "train")
    assert (first.image, first.id, first.image_id) == (picture(kind="JPEG"), "90", "9")
    assert isinstance(second, BadItem)
    assert "no picture in the folder ends in its image_id 7" in second.reason
    assert isinstance(third, BadItem)
    assert "no question of its question_id" in third.reason


def test_an_annotation_may_have_one_answer(tmp_path: Path) -> None:
    (tmp_path / "7.png").write_bytes(picture())
    asked = {"question_id": 1, "image_id": 7, "question": "What?"}
    answered = {"question_id": 1, "answer": "a"}
    for name, entry in (("questions", asked), ("annotations", answered)):
        (tmp_path / f"{name}.json").write_text(json.dumps({name: [entry]}))
    assert [one.answers for one in items(tmp_path)] == [("a",)]


def test_questions_that_nobody_answered_are_told(tmp_path: Path) -> None:
    annotations = vqa_folder(tmp_path) / "v2_mscoco_train2014_annotations.json"
    annotations.write_text(json.dumps({"annotations": [], "info": {"questions": []}}))
    assert [(one.place, one.reason) for one in read(tmp_path) if isinstance(one, BadItem)] == [
        (
            f"v2_OpenEnded_mscoco_train2014_questions.json question {number}",
            "it has no annotation in v2_mscoco_train2014_annotations.json",
        )
        for number in (90, 70)
    ]


def test_a_question_that_cannot_be_told_from_others_is_told(tmp_path: Path) -> None:
    path = vqa_folder(tmp_path) / "v2_OpenEnded_mscoco_train2014_questions.json"
    asked = {"question_id": 90, "image_id": 9, "question": "What colour?"}
    entries = [asked, {**asked, "question": "And where?"}, {**asked, "question_id": [70]}, "x"]
    path.write_text(json.dumps({"questions": entries}))
    found = [(one.place, one.reason) for one in read(tmp_path) if isinstance(one, BadItem)]
    wanted = "wanted a question with its question_id and image_id"
    assert found[:2] == [(f"{path.name} item {number}", wanted) for number in (2, 3)]
    assert found[2][1] == f"there are several questions of its question_id in {path.name}"
    assert len(found) == len(read(tmp_path))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["val2014/a_9.jpg"], "train2014"),
        (["train2014/9.png"], "train2014/9.png"),
        (["train2014/dog_09.jpg"], None),
        (["__MACOSX/train2014/._COCO_train2014_000000000009.jpg"], "train2014"),
    ],
)
def test_a_number_means_one_picture_or_none(
    tmp_path: Path, names: list[str], chosen: str | None
) -> None:
    vqa_folder(tmp_path)
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(1))
    found = read(tmp_path)[0]
    if chosen is None:
        assert isinstance(found, BadItem)
        assert "several pictures in the folder end in its image_id 9: " in found.reason
    else:
        assert isinstance(found, Item)
        assert (found.image_name or "").startswith(chosen)


def test_annotations_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    annotations = vqa_folder(tmp_path) / "v2_mscoco_train2014_annotations.json"
    (tmp_path / "answers").mkdir()
    annotations.rename(tmp_path / "answers" / annotations.name)
    first = read(tmp_path)[0]
    assert isinstance(first, Item)
    assert (first.answers, first.split) == (("red", "red"), "train")


def test_questions_without_annotations_are_refused(tmp_path: Path) -> None:
    (vqa_folder(tmp_path) / "v2_mscoco_train2014_annotations.json").unlink()
    with pytest.raises(InvalidDatasetError, match="its answers are missing"):
        read(tmp_path)


def test_an_upload_is_told_by_its_content_and_follows_no_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    line = json.dumps({"file_name": "a.png", **ASKED})
    path = tmp_path / "body.upload"
    for text, layout in (
        (line, "JSON lines"),
        (f"[{line}]", "JSON"),
        ("file_name,question,answer\na.png,q,a", "CSV"),
    ):
        path.write_text(text)
        source = open_upload(path)
        (found,) = source.found
        assert source.layout == layout
        assert isinstance(found, BadItem)
        assert "a path alone is never followed" in found.reason
    path.write_bytes(b"\0\1\2")
    with pytest.raises(InvalidDatasetError, match="no layout that is known"):
        open_upload(path)


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="found nothing"):
        read(tmp_path)
    for name in ("a.png", "b.PNG", "images.zip", "LICENSE"):
        (tmp_path / name).write_bytes(picture())
    with pytest.raises(InvalidDatasetError, match=r"found \.png, \.zip, LICENSE") as caught:
        read(tmp_path)
    assert f"no data set in the folder {tmp_path.name}: " in caught.value.message


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv", "a.tar", "a.zip"])
def test_a_pointer_in_place_of_a_file_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(InvalidDatasetError, match=r"^a Git LFS pointer in place of the file"):
        open_upload(path)
    if not name.endswith("zip"):
        with pytest.raises(InvalidDatasetError, match=rf"^{name}: a Git LFS pointer"):
            read(path.parent)
