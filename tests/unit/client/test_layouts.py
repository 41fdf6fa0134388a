"""Data sets as they lie on disks and hubs are one kind of item, or are refused by their place."""

import base64
import io
import json
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts import archives, texts
from vlibrary_client.layouts.items import BadItem, Found, Item
from vlibrary_client.layouts.sources import DatasetSource, open_source, open_upload

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


def item(fields: Mapping[str, Any], **options: Any) -> Item:  # noqa: ANN401 - passed on
    (one,) = items([{"image": picture(), **fields}], **options)
    return one


def reason(fields: Mapping[str, Any]) -> str:
    (one,) = read([fields])
    assert isinstance(one, BadItem), one
    return one.reason


def table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({"answer": "red"}, ("red",)),
        ({"answers": ["red", "crimson"]}, ("red", "crimson")),
        ({"answers": [], "answer": "red"}, ("red",)),
        ({"answers": ["red"], "answer": "blue"}, ("red",)),
        ({"answer": 3}, ("3",)),
        ({"answer": 3.0}, ("3",)),
        ({"answer": 2.5}, ("2.5",)),
        ({"answer": True}, ("yes",)),
        ({"answer": False}, ("no",)),
        ({"answers": [{"answer": "red", "answer_confidence": "yes"}, {"answer": "blue"}]},
         ("red", "blue")),
        ({"multiple_choice_answer": "red"}, ("red",)),
        ({"choices": ["a", "b", "c"], "answer": 2}, ("c",)),
        ({"choices": ["a", "b"], "correct_choice_idx": 1}, ("b",)),
        ({"choices": ["a", "b"], "answer": "b"}, ("b",)),
    ],
)  # fmt: skip
def test_answers_come_in_many_forms(fields: dict[str, Any], answers: tuple[str, ...]) -> None:
    assert item({"question": "q", **fields}).answers == answers


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"question": "q"}, "wanted an answer"),
        ({"question": 3, "answer": "a"}, "wanted a question of text, found int"),
        ({"question": " ", "answer": "a"}, "its question is empty"),
        ({"question": "q", "answer": ""}, "its answer is empty"),
        ({"question": "q", "answers": ["a", " "]}, "its answer is empty"),
        ({"question": "q", "answers": ["a"] * 65}, "more than 64 answers"),
        ({"question": "q" * 4001, "answer": "a"}, "more than 4000 characters"),
        ({"question": "\ud800", "answer": "a"}, "no Unicode text"),
        ({"question": "q", "answer": float("nan")}, "wanted an answer of text"),
        ({"question": "q", "choices": ["a"], "answer": 4}, "no place in its choices"),
        ({"problem": "q", "solution": "a"}, "found problem, solution"),
        ({"images": [b"a", b"b"], **ASKED}, "2 pictures in images, wanted one"),
        ({"image": b"a", "file_name": "b.png", **ASKED}, "2 pictures in image and file_name"),
        ({"image": "https://host/a.png", **ASKED}, "nothing is fetched"),
        ({"image": "data:image/png,x", **ASKED}, "no data URL of base64"),
        ({"image": 3, **ASKED}, "found int"),
        ({"id": 1.5, **ASKED}, "wanted id as text or a whole number"),
    ],
)
def test_what_is_no_item_is_told(fields: dict[str, Any], words: str) -> None:
    assert words in reason(fields)


@pytest.mark.parametrize(
    "image",
    [
        picture(),
        [picture()],
        {"bytes": picture(), "path": "a.png", "width": 8},
        "data:image/png;base64," + base64.b64encode(picture()).decode(),
        Image.new("RGB", (8, 8)),
    ],
)
def test_a_picture_comes_in_many_forms(image: object) -> None:
    found = item({"image": image, **ASKED}).image
    assert found is not None
    assert Image.open(io.BytesIO(found)).size == (8, 8)


@pytest.mark.parametrize("image", [None, b"", [], {"bytes": None, "path": None}, ""], ids=range(5))
def test_a_row_may_have_no_picture(image: object) -> None:
    assert item({"image": image, **ASKED}).image is None


def test_columns_may_have_other_names() -> None:
    fields = {"problem": "q?", "solution": "a", "answer": "other", "answers": ["more"]}
    found = item(fields, columns={"question": "problem", "answer": "solution"})
    assert (found.question, found.answers) == ("q?", ("a",))


def test_a_missing_or_unknown_column_is_refused_with_what_there_is(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [{"image": picture(), "problem": "q", "solution": "a"}])
    with pytest.raises(InvalidDatasetError, match="found the columns image, problem, solution"):
        read(path)
    with pytest.raises(InvalidDatasetError, match="no column task"):
        read(path, columns={"question": "task", "answer": "solution"})
    with pytest.raises(InvalidDatasetError, match="cannot map quest"):
        read(path, columns={"quest": "problem"})
    assert len(items(path, columns={"question": "problem", "answer": "solution"})) == 1


class TestConversations:
    HUMAN: Mapping[str, Any] = {"from": "human", "value": "<image>\nWhat colour?"}
    GPT: Mapping[str, Any] = {"from": "gpt", "value": "red"}

    @pytest.mark.parametrize("first", ["<image>\nWhat colour?", "What colour?\n<image>"])
    def test_those_of_llava_ask_about_the_picture(self, first: str) -> None:
        found = item({"conversations": [{"from": "human", "value": first}, self.GPT]})
        assert (found.question, found.answers) == ("What colour?", ("red",))

    def test_every_question_is_an_item(self) -> None:
        turns = [self.HUMAN, self.GPT, {"from": "human", "value": "And where?"}, self.GPT]
        first, second = items([{"id": "x", "image": picture(), "conversations": turns}])
        assert (first.place, second.place) == ("item 0, question 1", "item 0, question 2")
        assert (first.question, second.question) == ("What colour?", "And where?")
        assert (first.id, second.id) == ("x-1", "x-2")
        assert first.image == second.image

    def test_those_of_openai_may_hold_the_picture(self) -> None:
        url = "data:image/png;base64," + base64.b64encode(picture()).decode()
        messages = [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": "What colour?"},
                ],
            },
            {"role": "assistant", "content": "red"},
        ]
        (found,) = items([{"messages": messages}])
        assert (found.image, found.question, found.answers) == (picture(), "What colour?", ("red",))

    @pytest.mark.parametrize(
        ("turns", "words"),
        [
            ([], "no list of turns"),
            ([HUMAN], "does not alternate"),
            ([GPT, HUMAN], "does not alternate"),
            ([{"from": "system", "value": "Be short."}, HUMAN, GPT], "system turn"),
            ([{"from": "tool", "value": "x"}, GPT], "unknown role"),
            ([{"from": "human", "value": "Is <image> red?"}, GPT], "inside a text"),
            ([{"from": "human", "value": "<image><image> Both?"}, GPT], "2 pictures"),
            ([HUMAN, GPT, HUMAN, GPT], "after the first question"),
            ([{"from": "human"}, GPT], "without content"),
        ],
    )
    def test_what_would_change_a_turn_is_refused(self, turns: list[Any], words: str) -> None:
        assert words in reason({"image": picture(), "conversations": turns})

    def test_a_picture_that_is_shown_must_be_there(self) -> None:
        assert "not there" in reason({"conversations": [self.HUMAN, self.GPT]})


def folder_of(root: Path, names: list[str], listed: list[str], **where: str) -> Path:
    for name in names:
        path = root / where.get("pictures", "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())
    target = root / where.get("metadata", "metadata.jsonl")
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"file_name": name, **ASKED}, ensure_ascii=False) for name in listed]
    target.write_bytes(
        where.get("head", "").encode() + where.get("ends", "\n").join(lines).encode()
    )
    return root


ACCENTED = unicodedata.normalize("NFD", "Größe.png")


@pytest.mark.parametrize(
    ("on_disk", "listed"),
    [
        ("a b.png", "a b.png"),
        ("100%.png", "100%.png"),
        ("#1.png", "#1.png"),
        ("a%20b+.png", "a%20b+.png"),
        (ACCENTED, unicodedata.normalize("NFC", ACCENTED)),
        (unicodedata.normalize("NFC", ACCENTED), ACCENTED),
        ("in/a.png", "in\\a.png"),
    ],
)
def test_pictures_are_found_by_any_name(tmp_path: Path, on_disk: str, listed: str) -> None:
    (found,) = items(folder_of(tmp_path, [on_disk], [listed]))
    assert found.image == picture()


def test_line_ends_and_byte_order_marks_mean_nothing(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.png"], ["a.png", "a.png"], head="\ufeff", ends="\r\n\r\n")
    assert [one.place for one in items(tmp_path)] == [
        "metadata.jsonl line 1",
        "metadata.jsonl line 3",
    ]


def test_folders_named_after_splits_are_splits(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        folder_of(
            tmp_path, ["a.png"], ["a.png"], metadata=f"{split}/metadata.jsonl", pictures=split
        )
    found = items(tmp_path)
    assert sorted((one.split or "", one.place) for one in found) == [
        ("test", "test/metadata.jsonl line 1"),
        ("train", "train/metadata.jsonl line 1"),
        ("validation", "validation/metadata.jsonl line 1"),
    ]
    assert open_source(tmp_path).layout == "image folder"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_metadata_may_be_a_table(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    if kind == "csv":
        text = 'file_name,question,answers,split\na.png,"What, here?","[""red"",""blue""]",test\n'
        (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    else:
        row = {"file_name": "a.png", "question": "What, here?", "answers": ["red", "blue"]}
        table(tmp_path / "metadata.parquet", [{**row, "split": "test"}])
    (found,) = items(tmp_path)
    assert (found.question, found.answers, found.split) == ("What, here?", ("red", "blue"), "test")
    assert found.image == picture()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "link.png", "gone.png"])
def test_a_picture_that_is_not_in_the_folder_is_refused_by_its_line(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    root = folder_of(tmp_path / "in", ["a.png"], ["a.png", name])
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    first, second = read(root)
    assert isinstance(first, Item)
    assert isinstance(second, BadItem)
    assert second.place == "metadata.jsonl line 2"
    assert "outside of the folder" in second.reason or "No such file" in second.reason
    assert str(tmp_path) not in second.reason


def test_a_line_that_is_no_object_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "q", "answer": "a"}\n{\n\xff\n[1]\n')
    found = read(tmp_path / "a.jsonl")
    assert [one.place for one in found] == [f"a.jsonl line {number}" for number in (1, 2, 3, 4)]
    assert [isinstance(one, BadItem) for one in found] == [False, True, True, True]


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


def test_questions_and_annotations_of_the_vqa_challenge_are_joined(tmp_path: Path) -> None:
    first, second, third = read(vqa_folder(tmp_path))
    assert isinstance(first, Item)
    assert (first.question, first.answers, first.split) == ("What colour?", ("red", "red"), "train")
    assert (first.image, first.id, first.image_id) == (picture(kind="JPEG"), "90", "9")
    assert isinstance(second, BadItem)
    assert "no picture in the folder ends in its image_id 7" in second.reason
    assert isinstance(third, BadItem)
    assert "no question of its question_id" in third.reason


def test_questions_without_annotations_are_refused(tmp_path: Path) -> None:
    (vqa_folder(tmp_path) / "v2_mscoco_train2014_annotations.json").unlink()
    with pytest.raises(InvalidDatasetError, match="its answers are missing"):
        read(tmp_path)


def packed(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


SAMPLES = {
    "a/0001.json": json.dumps({"question": "What colour?"}).encode(),
    "a/0001.jpg": picture(kind="JPEG"),
    "a/0001.answer.txt": b"red",
    "a/0002.png": picture(),
    "a/0002.json": json.dumps(ASKED).encode(),
    "a/0003.json": b"{",
}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_webdataset_tars_are_read_as_streams(tmp_path: Path, mode: str) -> None:
    path = packed(tmp_path / "train.tar", SAMPLES, mode)
    first, second, third = open_upload(path).found
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert (first.place, first.image, first.answers) == (
        "file: a/0001",
        picture(kind="JPEG"),
        ("red",),
    )
    assert second.image == picture()
    assert isinstance(third, BadItem)
    assert third.reason == "its .json cannot be read"


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_packed_folders_are_image_folders(tmp_path: Path, kind: str) -> None:
    line = json.dumps({"file_name": "a.png", **ASKED}).encode()
    members = {"set/train/metadata.jsonl": line, "set/train/a.png": picture()}
    path = tmp_path / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        packed(path, members, "w:gz" if kind == "tgz" else "w")
    source = open_upload(path)
    (found,) = source.found
    assert isinstance(found, Item)
    assert (source.layout, found.split, found.image) == ("packed folder", "train", picture())


@pytest.mark.parametrize("name", ["../metadata.jsonl", "/etc/metadata.jsonl"])
def test_a_name_that_leads_out_of_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidDatasetError, match="leads out of it"):
        list(open_upload(packed(tmp_path / "a.tar", {name: b"{}"})).found)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"{}")
    with pytest.raises(InvalidDatasetError, match="leads out of it"):
        list(open_upload(tmp_path / "a.zip").found)


def test_an_archive_that_unfolds_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1000)
    members = {"metadata.jsonl": b"{}", "a.png": bytes(2000)}
    with pytest.raises(InvalidDatasetError, match="unfolds to more than 1000 bytes"):
        list(open_upload(packed(tmp_path / "a.tgz", members, "w:gz")).found)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", SAMPLES)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InvalidDatasetError, match="damaged or cut short"):
        list(open_upload(path).found)


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
    (tmp_path / "a.png").write_bytes(picture())
    with pytest.raises(InvalidDatasetError, match="no data set in the folder"):
        read(tmp_path)
