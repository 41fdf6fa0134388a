"""Data sets as they lie on disks and hubs are one kind of item, or are refused by their place."""

import base64
import io
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes.files.layouts import ASKED, items, picture, read, table
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts.items import BadItem, Item

PICKED = {"question": "q", "answer": "A"}


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
        ({"answer": Decimal("1.50")}, ("1.5",)),
        ({"answer": Decimal("3.00")}, ("3",)),
        ({"answer": Decimal("1E+3")}, ("1000",)),
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
        (
            {"question": "q", "label": "a"},
            "found none; it has label, and a map such as answer=COLUMN",
        ),
        ({"question": 3, "answer": "a"}, "wanted a question of text, found int"),
        ({"question": " ", "answer": "a"}, "its question is empty"),
        ({"question": "q", "answer": ""}, "its answer is empty"),
        ({"question": "q", "answers": ["a", " "]}, "its answer is empty"),
        ({"question": "q", "answers": ["a"] * 65}, "more than 64 answers"),
        ({"question": "q" * 4001, "answer": "a"}, "more than 4000 characters"),
        ({"question": "\ud800", "answer": "a"}, "no Unicode text"),
        ({"question": "q", "answer": float("nan")}, "a list of answers, found none"),
        ({"question": "q", "answer": Decimal("nan")}, "wanted an answer of text"),
        ({"question": "q", "choices": ["a"], "answer": 4}, "no place in its choices"),
        ({"question": "q", "choices": ["a"], "answer": "C"}, "no place in its choices"),
        ({"question": "q", "choices": ["a", None], "answer": "B"}, "no place in its choices"),
        ({**PICKED, "choices": {"label": ["A", "B"], "text": ["a"]}}, "no label of its own"),
        ({**PICKED, "choices": {"label": ["A", "A"], "text": ["a", "b"]}}, "no label of its own"),
        ({**PICKED, "choices": {"label": None, "text": None}}, "no label of its own"),
        ({"problem": "q", "solution": "a"}, "found problem, solution"),
        ({"images": [b"a", b"b"], **ASKED}, "2 pictures in images, wanted one"),
        ({"image": b"a", "images": [b"b"], **ASKED}, "2 pictures in image and images"),
        ({"image": b"a", "images": ["b.png", "c.png"], **ASKED}, "3 pictures in image and images"),
        ({"image": "a.png", "file_name": "b.png", **ASKED}, "2 pictures in image and file_name"),
        ({"images": [b"a", b"a"], **ASKED}, "2 pictures in images, wanted one"),
        ({"image": "https://host/a.png", **ASKED}, "nothing is fetched"),
        ({"image": "data:image/png,x", **ASKED}, "no data URL of base64"),
        ({"image": 3, **ASKED}, "found int"),
        ({"image": {"src": "https://h/a.png", "width": 8}, **ASKED}, "found src, width"),
        ({"image": {"bytes": "*", "path": None}, **ASKED}, "no data URL of base64"),
        ({"image": {"bytes": [1, 2], "path": None}, **ASKED}, "bytes that are none"),
        ({"image": list(picture()), **ASKED}, "wanted its image as an encoded file, found numbers"),
        ({"image": [[[1, 2, 3]]], **ASKED}, "wanted its image as an encoded file, found numbers"),
        ({"image": np.zeros((8, 8, 3)), **ASKED}, "a path or data URL, found ndarray"),
        ({"images": [np.zeros((8, 8, 3))], **ASKED}, "a path or data URL, found ndarray"),
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
        base64.b64encode(picture(kind="JPEG")).decode(),
        {"bytes": base64.b64encode(picture()).decode(), "path": "a.png"},
        bytearray(picture()),
        base64.encodebytes(picture(kind="WEBP")).decode(),
        Image.new("RGB", (8, 8)),
    ],
)
def test_a_picture_comes_in_many_forms(image: object) -> None:
    found = item({"image": image, **ASKED}).image
    assert found is not None
    assert Image.open(io.BytesIO(found)).size == (8, 8)


@pytest.mark.parametrize(
    "beside",
    [
        {"file_name": "b.png"},
        {"image_path": "in/b.png", "images": []},
        {"images": [picture()]},
        {"file_name": "b.png", "images": [{"bytes": picture(), "path": "c.png"}]},
        {"file_name": {"bytes": None, "path": None}},
    ],
)
def test_what_other_columns_say_of_a_picture_again_is_one_picture(beside: dict[str, Any]) -> None:
    assert item({**beside, **ASKED}).image == picture()


def test_the_name_beside_an_encoded_picture_is_what_it_is_called() -> None:
    assert item({"image_path": "in/b.png", **ASKED}).image_name == "in/b.png"
    named = {"bytes": picture(), "path": "a.png"}
    assert item({"image": named, "image_path": "in/b.png", **ASKED}).image_name == "a.png"
    empty = read([{"image": {"bytes": None, "path": None}, "file_name": "gone.png", **ASKED}])
    assert isinstance(empty[0], BadItem)
    assert "cannot read the image file gone.png" in empty[0].reason


def test_whole_numbers_of_columns_with_gaps_are_names() -> None:
    found = item({"id": 7.0, "image_id": None, **ASKED})
    assert (found.id, found.image_id) == ("7", None)


@pytest.mark.parametrize(
    "image", [None, b"", [], {"bytes": None, "path": None}, "", {}, {"bytes": b""}], ids=range(7)
)
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
            ("", "wanted a question"),
            ("hello", "no list of turns"),
            ("[hello", "begin like a list"),
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

    def test_a_conversation_may_be_a_text_of_json_or_missing(self) -> None:
        text = json.dumps([self.HUMAN, self.GPT])
        assert item({"conversations": text}).question == "What colour?"
        assert item({"conversations": [], "messages": "[]", **ASKED}).question == ASKED["question"]

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


def test_rows_may_be_given_by_split() -> None:
    row = {"image": picture(), **ASKED}
    found = items({"train": [row, {**row, "split": "val"}], "test": iter([row])})
    assert [(one.place, one.split) for one in found] == [
        ("train item 0", "train"),
        ("train item 1", "val"),
        ("test item 0", "test"),
    ]


@pytest.mark.parametrize("value", ["a.png", b"a", None, {"question": "q"}])
def test_one_row_is_no_data_set(value: object) -> None:
    with pytest.raises(InvalidDatasetError, match="found a mapping whose image has no rows"):
        read({"image": value, **ASKED})  # type: ignore[arg-type]  # what a caller may mistake


@pytest.mark.parametrize("columns", [{}, {"answer": "label"}])
def test_a_mapping_of_columns_is_told_for_what_it_is(columns: dict[str, str]) -> None:
    source: Any = {"image": [picture()], "question": ["q"], "label": ["a"]}
    with pytest.raises(InvalidDatasetError, match="found a mapping of columns: image, question"):
        read(source, columns=columns)


@pytest.mark.parametrize("source", [None, 5])
def test_what_has_no_rows_is_no_data_set(source: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(InvalidDatasetError, match="wanted a path or an iterable of mappings"):
        read(source)
