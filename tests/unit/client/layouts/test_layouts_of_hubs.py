"""The layouts of challenges and of sets that many people take from hubs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes.files.layouts import ASKED, items, picture, read
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts import pictures
from vlibrary_client.layouts.items import BadItem, Constant, Item, with_question
from vlibrary_client.layouts.sources import open_upload

STRUCT = {"bytes": picture(), "path": "a.png"}
PROBLEM = {"question": "problem"}
TURNS = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]


def reason(fields: dict[str, Any]) -> str:
    (found,) = read([fields])
    assert isinstance(found, BadItem)
    return found.reason


def test_exchanges_of_user_and_assistant_are_questions(tmp_path: Path) -> None:
    texts = [
        {"user": "What?", "assistant": "red", "source": "x"},
        {"user": "And?", "assistant": "b"},
    ]
    pq.write_table(pa.Table.from_pylist([{"images": [STRUCT], "texts": texts}]), tmp_path / "a")
    found = items(tmp_path / "a")
    assert [(one.question, one.answers) for one in found] == [("What?", ("red",)), ("And?", ("b",))]
    assert {one.image for one in found} == {picture()}


@pytest.mark.parametrize("question", ["<image>\nWhat?", "What?<image>", "<image>What?"])
def test_a_question_may_say_where_its_picture_stands(question: str) -> None:
    (found,) = items([{"images": [STRUCT], "problem": question, "answer": "a"}], columns=PROBLEM)
    assert found.question == "What?"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"question": "Is <image> red?", "image": STRUCT}, "its question shows a picture inside"),
        ({"question": "<image><image>Both?", "image": STRUCT}, "its question shows 2 pictures"),
        ({"question": "<image>What?"}, "its question shows a picture that is not there"),
        ({"question": "<image>", "image": STRUCT}, "its question is empty"),
    ],
)
def test_a_question_with_a_picture_elsewhere_is_refused(fields: dict[str, Any], words: str) -> None:
    assert words in reason({**fields, "answer": "a"})


def test_an_answer_that_stands_under_another_name_is_told() -> None:
    words = "wanted an answer of text, or under answer, found text, start"
    assert reason({"question": "q", "answers": [{"text": "red", "start": 1}]}) == words


def test_several_direct_answers_are_no_places_of_choices() -> None:
    (found,) = items([{"question": "q", "choices": ["a", "b", "c"], "answers": ["2", "two"]}])
    assert found.answers == ("2", "two")


@pytest.mark.parametrize("answer", ["answer", "answers", "multiple_choice_answer"])
def test_a_question_beside_a_conversation_is_told(answer: str) -> None:
    fields = {"messages": TURNS, "question": "q", answer: "a"}
    assert "a question with an answer beside its messages" in reason(fields)
    (found,) = items([fields], columns={"question": "question"})
    assert (found.question, found.answers) == ("q", ("a",))
    (found,) = items([{"messages": TURNS, "question": "q"}])
    assert (found.question, found.answers) == ("u", ("v",))


def test_texts_beside_a_question_are_something_else() -> None:
    (found,) = items([{"texts": ["read", "off"], **ASKED}])
    assert found.question == ASKED["question"]
    assert reason({"texts": ["read", "off"]}) == "its texts has a turn without content"


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("behind", [{}, {"version": 1, "split": "train"}])
def test_the_data_of_a_challenge_stand_in_an_object(
    tmp_path: Path, *, indent: int | None, behind: dict[str, Any]
) -> None:
    rows = [{"questionId": 1, "image": "documents/a.png", **ASKED, "ucsf_document_page_no": "1"}]
    wrapped = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "data": rows, **behind}
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.png").write_bytes(picture())
    (tmp_path / "train_v1.0.json").write_text(json.dumps(wrapped, indent=indent))
    (found,) = items(tmp_path)
    assert (found.question, found.image, found.split) == (ASKED["question"], picture(), "train")
    del rows[0]["image"]
    (tmp_path / "body").write_text(json.dumps(wrapped, indent=indent))
    (found,) = open_upload(tmp_path / "body").found  # type: ignore[assignment]
    assert found.question == ASKED["question"]


def test_nothing_behind_the_data_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": [ASKED], "more": [ASKED]}))
    with pytest.raises(InvalidDatasetError, match="something stands behind its array"):
        read(tmp_path / "a.json")


def test_a_row_with_data_of_its_own_is_a_row(tmp_path: Path) -> None:
    row = json.dumps({**ASKED, "data": [{"seen": 1}]})
    (tmp_path / "a.json").write_text(f"{row}\n{row}\n")
    assert len(items(tmp_path / "a.json")) == 2


def test_a_picture_may_be_called_like_its_image_id(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "00685bc4.jpg").write_bytes(picture())
    rows = [{"image_id": "00685bc4", **ASKED}, {"image_id": "elsewhere", **ASKED}]
    (tmp_path / "train.json").write_text(json.dumps({"data": rows}))
    first, second = items(tmp_path)
    assert (first.image, first.image_name) == (picture(), "00685bc4.jpg")
    assert second.image is None
    (tmp_path / "00685bc4.png").write_bytes(picture())
    assert any(isinstance(one, BadItem) for one in read(tmp_path))


def test_a_folder_is_searched_for_names_of_pictures_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Path] = []

    def search(root: Path) -> list[Path]:
        searched.append(root)
        return list(root.glob("*.png"))

    monkeypatch.setattr(pictures, "files_below", search)
    (tmp_path / "7.png").write_bytes(picture())
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"image_id": 7, **ASKED}))
    assert [one.image for one in items(tmp_path)] == [picture()] * 2
    assert searched == [tmp_path]


@pytest.mark.parametrize(
    "rows",
    [
        [{"image_1": STRUCT, **ASKED}],
        [{"image": STRUCT, "image_1": STRUCT, **ASKED}],
        [{"image_1": [STRUCT], **ASKED}],
    ],
)
def test_pictures_that_no_rule_reads_are_no_silent_loss(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    words = "pictures in the column image_1 would not be read; a map such as image=COLUMN"
    assert reason(rows[0]).startswith(words)
    for shown in (Image.new("RGB", (40, 40)), [None, Image.new("RGB", (40, 40))]):
        assert reason({**rows[0], "image_1": shown}).startswith(words)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(InvalidDatasetError, match=words):
        read(tmp_path / "a.parquet")
    columns = {"image": "image_1"}
    assert [one.image for one in items(tmp_path / "a.parquet", columns=columns)] == [picture()]
    assert [one.image for one in items(rows, columns=columns)] == [picture()]


@pytest.mark.parametrize(
    ("columns", "rest", "answers"),
    [
        ({"answers": "told"}, {"choices": ["a", "b"], "correct_choice_idx": 1}, ("x", "y")),
        ({"answer": "why"}, {"choices": ["a", "b"], "correct_choice_idx": 1}, ("so",)),
        ({"question": "asked", "answer": "why"}, {"messages": TURNS}, ("so",)),
        ({"answers": "told"}, {"answer": "other"}, ("x", "y")),
    ],
)
def test_a_map_goes_before_what_else_would_answer(
    columns: dict[str, str], rest: dict[str, Any], answers: tuple[str, ...]
) -> None:
    fields = {"question": "q", "asked": "q", "told": ["x", "y"], "why": "so", **rest}
    (found,) = items([fields], columns=columns)
    assert (found.question, found.answers) == ("q", answers)


@pytest.mark.parametrize("column", ["answer", "answers"])
@pytest.mark.parametrize("own", ["answer", "answers", "multiple_choice_answer"])
def test_a_gap_in_a_column_that_was_named_is_no_other_columns_answer(column: str, own: str) -> None:
    (found,) = read([{"question": "q", "label": None, own: "other"}], columns={column: "label"})
    assert isinstance(found, BadItem)
    assert found.reason.startswith("wanted an answer")


def test_a_map_tells_the_picture_among_several_columns() -> None:
    rows = [{"image": "images/1.jpg", "decoded": STRUCT, "file_name": "b.png", **ASKED}]
    (found,) = items(rows, columns={"image": "decoded"})
    assert found.image == picture()


def classes(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture())
    return root


ASKING = {"question": Constant("What is this?")}


def test_folders_may_be_called_by_what_their_pictures_show(tmp_path: Path) -> None:
    root = classes(
        tmp_path, "train/red panda/1.png", "train/dog/a.JPG", "val/dog/a.png", "x/cat/train1.png"
    )
    found = [(one.question, one.answers, one.split) for one in items(root, columns=ASKING)]
    assert found == [
        ("What is this?", ("dog",), "train"),
        ("What is this?", ("red panda",), "train"),
        ("What is this?", ("dog",), "val"),
        ("What is this?", ("cat",), None),
    ]
    with pytest.raises(
        InvalidDatasetError, match="nothing is asked about them: wanted one question"
    ):
        read(root)


def test_a_class_is_written_as_people_type_it(tmp_path: Path) -> None:
    # Macs write folders with their accents apart.
    (found,) = items(classes(tmp_path, "cafe\u0301/1.png"), columns=ASKING)
    assert found.answers == ("caf\u00e9",)


def test_a_question_for_all_takes_no_columns_place() -> None:
    with pytest.raises(InvalidDatasetError, match="one question for all, found both"):
        with_question({"question": "problem"}, "What is this?")


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_folders_of_classes_may_be_packed(tmp_path: Path, kind: str) -> None:
    root = classes(
        tmp_path / "in", "train/cat/1.png", "test/dog/2.png", "__MACOSX/train/cat/._1.png"
    )
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), kind, root))
    found = [(one.answers, one.split) for one in items(packed, columns=ASKING)]
    assert sorted(found) == [(("cat",), "train"), (("dog",), "test")]
    with pytest.raises(InvalidDatasetError, match="nothing is asked about them"):
        list(open_upload(packed).found)


def test_a_picture_without_a_class_is_told(tmp_path: Path) -> None:
    root = classes(tmp_path, "dog/a.png", "b.png", "train/c.png", "dog/d.gif")
    found = read(root, columns=ASKING)
    assert [one.place for one in found if isinstance(one, BadItem)] == ["b.png", "train/c.png"]
    # What it is in tells who looks at the pixels.
    assert [one.place for one in found if isinstance(one, Item)] == ["dog/a.png", "dog/d.gif"]


def test_one_question_may_stand_before_labels(tmp_path: Path) -> None:
    rows = [{"image": STRUCT, "label": "red"}, {"image": STRUCT, "label": "blue"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    # A question is no name of a column, whatever it says.
    for question in ("Which colour?", "image", "label"):
        columns = with_question({"answer": "label"}, question)
        for source in (rows, tmp_path / "a.parquet"):
            found = [
                (one.question, one.answers, one.image) for one in items(source, columns=columns)
            ]
            assert found == [(question, (answer,), picture()) for answer in ("red", "blue")]


@pytest.mark.parametrize(
    "own",
    [ASKED, {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}],
)
def test_one_question_takes_no_other_ones_place(tmp_path: Path, own: dict[str, Any]) -> None:
    (found,) = read([{"image": picture(), **own}], columns=ASKING)
    assert isinstance(found, BadItem)
    assert found.reason.startswith("it has questions of its own in")
    pq.write_table(pa.Table.from_pylist([{"image": STRUCT, **own}]), tmp_path / "a.parquet")
    with pytest.raises(InvalidDatasetError, match="questions of its own in"):
        read(tmp_path / "a.parquet", columns=ASKING)
