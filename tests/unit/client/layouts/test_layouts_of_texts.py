"""Tables and records of text as spreadsheets, pandas and people write them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.files.layouts import ASKED, items, picture, read
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts.items import BadItem
from vlibrary_client.layouts.sources import open_source, open_upload


def written(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def reasons(source: Path) -> list[str]:
    found = read(source)
    assert all(isinstance(one, BadItem) for one in found), found
    return [one.reason for one in found if isinstance(one, BadItem)]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["", "\ufeff"])
def test_cells_are_divided_as_spreadsheets_do(
    tmp_path: Path, *, mark: str, ends: str, head: str
) -> None:
    lines = [f"question{mark}answer", f'"What, here; or\tthere?"{mark}red', ""]
    path = written(tmp_path / "a.csv", head + ends.join(lines))
    (found,) = items(path)
    assert (found.question, found.answers) == ("What, here; or\tthere?", ("red",))
    (found,) = open_upload(path.rename(tmp_path / "body")).found  # type: ignore[assignment]
    assert found.question == "What, here; or\tthere?"


def test_the_unnamed_column_that_pandas_writes_says_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ",question,answer\n0,What?,red\n1,And?,blue\n")
    assert [one.question for one in items(path)] == ["What?", "And?"]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "question,note,answer,note,answer\nq,1,red,2,blue\n")
    with pytest.raises(InvalidDatasetError, match=r"a\.csv: the column answer occurs twice"):
        read(path)
    path = written(tmp_path / "a.csv", "question,note,answer,note\nq,1,red,2\n")
    assert items(path)[0].answers == ("red",)


def test_a_table_without_the_columns_of_a_data_set_names_those_it_has(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "problem;solution\nq;a\n")
    with pytest.raises(InvalidDatasetError, match="found the columns problem, solution"):
        read(path)
    columns = {"question": "problem", "answer": "solution"}
    assert items(path, columns=columns)[0].answers == ("a",)


def test_a_cell_may_hold_a_picture(tmp_path: Path) -> None:
    url = "data:image/png;base64," + "A" * 300_000
    (found,) = items(written(tmp_path / "a.csv", f'image,question,answer\n"{url}",q,a\n'))
    assert found.image == bytes(225_000)


def test_what_is_no_csv_is_refused_in_its_own_words(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "question,answer\nStraße?,rot\n", encoding="latin-1")
    with pytest.raises(InvalidDatasetError, match=r"a\.csv: no CSV in UTF-8"):
        read(path)


@pytest.mark.parametrize("text", ['"q,a\nq,a\n', 'q,a\n"q" he asked,a\n', 'q,"a\n'])
def test_quotes_that_swallow_what_stands_behind_them_are_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "a.csv", "question,answer\n" + text)
    with pytest.raises(InvalidDatasetError, match=r"a\.csv: no CSV after line"):
        read(path)


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ('["red", "blue"]', ("red", "blue")),
        ("['red', 'blue']", ("red", "blue")),
        ("['it\\'s', \"no\"]", None),
        ("['red' 'blue']", None),
        ("[red]", None),
        ("red [dark]", ("red [dark]",)),
    ],
)
def test_a_list_of_answers_in_a_text_is_a_list_or_refused(
    cell: str, answers: tuple[str, ...] | None
) -> None:
    (found,) = read([{"question": "q", "answers": cell}])
    if answers is None:
        assert isinstance(found, BadItem)
        assert found.reason == "its answers or choices begin like a list and are none in JSON"
    else:
        assert found.answers == answers  # type: ignore[union-attr]
    (single,) = items([{"question": "q", "answer": cell}])
    assert single.answers == (cell,)


@pytest.mark.parametrize("is_array", [False, True])
def test_a_json_file_has_an_array_or_an_object_a_line(tmp_path: Path, *, is_array: bool) -> None:
    rows = [{**ASKED, "id": str(number)} for number in range(3)]
    text = json.dumps(rows, indent=1) if is_array else "\n".join(map(json.dumps, rows))
    path = written(tmp_path / "a.json", text)
    for source in (path, tmp_path):
        assert [one.id for one in items(source)] == ["0", "1", "2"]


def test_one_object_is_no_data_set(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps({"rows": [ASKED]}, indent=1))
    with pytest.raises(InvalidDatasetError, match="wanted a JSON array of objects, or an object a"):
        read(path)


@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, form: str) -> None:
    row = '{"question": "q", "answer": "red", "answer": "blue"}'
    path = written(tmp_path / "a.json", form.format(row))
    assert reasons(path) == ["the name answer occurs twice in it"]


@pytest.mark.parametrize("other", ["metadata.csv", "metadata.parquet"])
def test_a_folder_has_one_list_of_its_pictures(tmp_path: Path, other: str) -> None:
    written(tmp_path / "metadata.jsonl", json.dumps(ASKED))
    written(tmp_path / other, "question,answer\nq,a\n")
    names = " and ".join(sorted([other, "metadata.jsonl"]))
    with pytest.raises(InvalidDatasetError, match=f"has {re.escape(names)}, wanted one of them"):
        open_source(tmp_path)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", ".cache/more"])
@pytest.mark.parametrize("name", ["metadata.jsonl", "a.jsonl"])
def test_what_tools_hide_is_no_part_of_a_data_set(tmp_path: Path, hidden: str, name: str) -> None:
    (tmp_path / hidden).mkdir(parents=True)
    for folder in (tmp_path, tmp_path / hidden):
        written(folder / name, json.dumps(ASKED))
    assert len(items(tmp_path)) == 1


@pytest.mark.parametrize(
    "image",
    [
        "data:image/png;name=a.png;base64,{}",
        "DATA:;BASE64,{}",
        "data:image/png;base64,\n{}\n",
    ],
)
def test_a_data_url_is_read_as_in_a_request(image: str) -> None:
    payload = "-_" + "A" * 6
    (found,) = items([{"image": image.format(payload), **ASKED}])
    assert found.image == b"\xfb\xf0\0\0\0\0"
    (refused,) = read([{"image": image.format("*"), **ASKED}])
    assert isinstance(refused, BadItem)
    assert "not base64" in refused.reason


@dataclass
class ClassLabel:
    """As Hugging Face's: what the numbers of a column are called."""

    names: list[str] = field(default_factory=lambda: ["cat", "dog"])


@dataclass
class ListOf:
    feature: ClassLabel


class Rows(list[dict[str, Any]]):
    features: Mapping[str, object]


@pytest.mark.parametrize("several", [[ClassLabel()], ListOf(ClassLabel())])
def test_class_labels_of_rows_that_are_given_are_named(several: object) -> None:
    rows = Rows([{"question": "q", "answer": 1}, {"question": "q", "answers": [0, 1]}])
    rows.features = {"question": object(), "answer": ClassLabel(), "answers": several}
    assert [one.answers for one in items(rows)] == [("dog",), ("cat", "dog")]


def test_answers_may_be_a_table_of_them() -> None:
    fields = {"answer": ["red", "blue"], "answer_confidence": ["yes", "no"]}
    (found,) = items([{"image": picture(), "question": "q", "answers": fields}])
    assert found.answers == ("red", "blue")


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"choices": '["red", "blue"]', "answer": "1"}, "blue"),
        ({"choices": "['red', 'blue']", "correct_choice_idx": "0"}, "red"),
        ({"choices": ["1", "2"], "answer": "1"}, "1"),
        ({"choices": ["red", "blue"], "answer": "B"}, "blue"),
        ({"choices": ["A", "B"], "answer": "B"}, "B"),
        ({"choices": ["red", "blue"], "answer": "(A)"}, "red"),
        ({"choices": ["red", "blue"], "answer": "none of them"}, "none of them"),
        ({"options": ["red", "blue"], "answer": "B."}, "blue"),
        ({"options": {"A": "red", "B": "blue"}, "answer": "B"}, "blue"),
        ({"choices": {"label": ["1", "2"], "text": ["red", "blue"]}, "answer": "2"}, "blue"),
        ({"options": "A. red B. blue", "answer": "B"}, "B"),
        ({"choices": ["red", "blue"], "answer": "b"}, "blue"),
        ({"choices": "['red', 'blue']", "answer": "1.0"}, "blue"),
        ({"choices": "['1.0', '2.0']", "answer": "1.0"}, "1.0"),
        ({"choices": ["red", "b"], "answer": "b"}, "b"),
        ({"choices": ["red", "blue"], "answers": ["B"]}, "blue"),
        ({"choices": ["red", "blue"], "answers": ["B"], "answer": None}, "blue"),
        ({"choices": ["red", "blue"], "answers": "['B']"}, "blue"),
        (
            {
                "options": [{"label": "1", "text": "red"}, {"label": "2", "text": "blue"}],
                "answer": "2",
            },
            "blue",
        ),
        ({"choices": {"a": "red", "b": "blue"}, "answer": "(b)"}, "blue"),
    ],
)
def test_a_choice_may_be_written_as_tables_do(fields: dict[str, Any], answer: str) -> None:
    assert items([{"question": "q", **fields}])[0].answers == (answer,)


def test_rows_are_told_by_the_line_they_begin_at_and_empty_ones_say_nothing(tmp_path: Path) -> None:
    text = 'question,answer\n"What,\nhere?",red\n\n,,\n,\n"And\nthere?",blue\n'
    found = items(written(tmp_path / "a.csv", text))
    assert [(one.place, one.question) for one in found] == [
        ("a.csv line 2", "What,\nhere?"),
        ("a.csv line 7", "And\nthere?"),
    ]


def test_json_in_another_encoding_is_told(tmp_path: Path) -> None:
    line = json.dumps({"question": "Größe?", "answer": "a"}, ensure_ascii=False) + "\n"
    assert reasons(written(tmp_path / "a.jsonl", line, encoding="cp1252")) == ["not JSON in UTF-8"]
    with pytest.raises(InvalidDatasetError, match="wanted JSON in UTF-8, found UTF-16"):
        read(written(tmp_path / "b.jsonl", line, encoding="utf-16"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "question,answer\nWhat?,red\nFarbe?,gr\u00fcn\nWhat?,blue\n"),
        ("a.tsv", "question\tanswer\n\nFarbe?\tgr\u00fcn"),
        ("a.json", '[\n{"question": "What?", "answer": "red"},\n{"answer": "gr\u00fcn"}]'),
    ],
)
def test_where_a_text_is_in_another_encoding_is_told(tmp_path: Path, name: str, text: str) -> None:
    path = written(tmp_path / name, text, encoding="latin-1")
    with pytest.raises(InvalidDatasetError, match=r"8: line 3 has the byte 0xfc after .*gr['\"]"):
        read(path)


def test_nothing_stands_behind_an_array(tmp_path: Path) -> None:
    array = json.dumps([ASKED])
    assert len(items(written(tmp_path / "a.json", array + " \r\n\n"))) == 1
    with pytest.raises(InvalidDatasetError, match=r"a\.json: something stands behind its array"):
        read(written(tmp_path / "a.json", f"{array}\n{array}\n"))


def test_a_file_of_any_ending_may_hold_json(tmp_path: Path) -> None:
    assert open_source(written(tmp_path / "a.txt", json.dumps(ASKED) + "\n")).layout == "JSON lines"
    assert open_source(written(tmp_path / "b.txt", json.dumps([ASKED]))).layout == "JSON"


def test_a_column_that_a_record_lacks_is_not_among_those_that_were_found(tmp_path: Path) -> None:
    rows = [{"qa": ASKED}, {"qa.question": "q", "qa.answer": "a"}]
    path = written(tmp_path / "a.json", json.dumps(rows))
    found, _ = read(path, columns={"question": "qa.question", "answer": "qa.answer"})
    assert isinstance(found, BadItem)
    assert found.reason.endswith("found qa")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "upload"])
def test_text_as_spreadsheets_write_it_is_told_by_its_encoding(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("question;answer\nGr\u00f6\u00dfe?;1,5\n", encoding="utf-16")
    for opened in (open_source, open_upload):
        with pytest.raises(InvalidDatasetError, match=r"text in UTF-16, .* save it in UTF-8"):
            list(opened(path).found)
