"""Data sets as they lie on disks and hubs are one kind of item, or are refused by their place."""

import base64
import io
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes.files.layouts import ASKED, items, picture, read, table
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts.items import BadItem, Item
from vlibrary_client.layouts.sources import open_source


def item(fields: Mapping[str, Any], **options: Any) -> Item:  # noqa: ANN401 - passed on
    (one,) = items([{"image": picture(), **fields}], **options)
    return one


def reason(fields: Mapping[str, Any]) -> str:
    (one,) = read([fields])
    assert isinstance(one, BadItem), one
    return one.reason


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
        ({"image": list(picture()), **ASKED}, "wanted its image as an encoded file, found numbers"),
        ({"image": [[[1, 2, 3]]], **ASKED}, "wanted its image as an encoded file, found numbers"),
        ({"video": "a.mp4", **ASKED}, "it has video, which prompts cannot show"),
        ({"tools": '[{"name": "f"}]', **ASKED}, "it has tools, which prompts cannot show"),
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
            ([HUMAN, {**GPT, "weight": 0}], "a turn of weight 0"),
        ],
    )
    def test_what_would_change_a_turn_is_refused(self, turns: list[Any], words: str) -> None:
        assert words in reason({"image": picture(), "conversations": turns})

    @pytest.mark.parametrize("field", ["tool_calls", "function_call", "audio"])
    def test_what_else_a_turn_says_is_not_left_out(self, field: str) -> None:
        asked = {"role": "user", "content": "What colour?", field: None}
        said = {"role": "assistant", "content": "red", field: [{"id": "1"}]}
        assert f"a turn with {field}" in reason({"messages": [asked, said]})
        found = item({"messages": [asked, {**said, field: [], "refusal": None}], "tools": "[]"})
        assert found.answers == ("red",)

    def test_what_the_system_says_beside_it_is_not_left_out(self) -> None:
        fields = {"image": picture(), "conversations": [self.HUMAN, self.GPT]}
        assert "a system text beside" in reason({**fields, "system": "Be short."})
        assert item({**fields, "system": ""}).answers == ("red",)

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
