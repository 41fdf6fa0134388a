"""What archives hold is read as it was meant, or told: samples, links, and what lies beside."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.fakes.files.layouts import ASKED, picture
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts.items import BadItem, Constant, Found, Item
from vlibrary_client.layouts.sources import open_upload

SAMPLE = json.dumps(ASKED).encode()
ASKING = {"question": Constant("What is this?")}


def packed(
    path: Path, *members: tuple[str, bytes], links: tuple[tuple[str, str], ...] = ()
) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind.encode(), members[0][0]
            archive.addfile(info)
    return path


def found_in(path: Path, *members: tuple[str, bytes]) -> list[Found]:
    return list(open_upload(packed(path, *members)).found)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("1.json", SAMPLE), ("1.answer", b"blue")], "its answer is there twice, and differs"),
        ([("1.answer", b"a"), ("1.answer", b"b"), ("1.question", b"q")], "its answer is there"),
        ([("1.json", SAMPLE), ("1.json", b'{"answer": "blue"}')], "its answer is there twice"),
        ([("1.json", SAMPLE), ("1.jpg", b"")], "its .jpg is an empty file"),
        (
            [("1.json", json.dumps({"images": ["a.png", "b.png"], **ASKED}).encode())],
            "it has 3 pictures in images",
        ),
    ],
)
def test_a_sample_that_says_two_things_is_told(
    tmp_path: Path, members: list[tuple[str, bytes]], words: str
) -> None:
    (found,) = found_in(tmp_path / "a.tar", *members, ("1.png", picture()))
    assert isinstance(found, BadItem)
    assert found.reason.startswith(words)


@pytest.mark.parametrize(
    "members",
    [
        [("1.json", SAMPLE), ("1.answer", ASKED["answer"].encode() + b"\n")],
        [("1.question", b"\xef\xbb\xbfWhat colour?"), ("1.answer", b"\xef\xbb\xbfred\r\n")],
        [("1.json", json.dumps({"images": None, **ASKED}).encode())],
        [("1.json", json.dumps({"images": ["in/1.png"], **ASKED}).encode())],
        [("1.json", SAMPLE), ("README.md", b"x"), ("Thumbs.db", b"x")],
    ],
    ids=range(5),
)
def test_a_sample_says_the_same_in_any_form(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    for number, order in enumerate([members, members[::-1]]):
        place = 1 if number else len(order)
        whole = [*order[:place], ("1.png", picture()), *order[place:]]
        samples = [one for one in whole if one[0].startswith("1")]
        rest = [one for one in whole if one not in samples]
        (found,) = found_in(tmp_path / f"{number}.tar", *samples, *rest)
        assert isinstance(found, Item), found
        assert (found.question, found.answers, found.image) == (*asked(), picture())


def asked() -> tuple[str, tuple[str, ...]]:
    return ASKED["question"], (ASKED["answer"],)


@pytest.mark.parametrize("kind", ["1", "2"], ids=["hard", "symbolic"])
def test_a_link_in_place_of_a_picture_is_told(tmp_path: Path, kind: str) -> None:
    classes = packed(tmp_path / "a.tar", ("cat/1.png", picture()), links=(("dog/2.png", kind),))
    first, second = open_upload(classes, columns=ASKING).found
    assert isinstance(first, Item)
    assert isinstance(second, BadItem)
    assert second.reason.startswith("cannot read the image file dog/2.png")
    sample = packed(tmp_path / "b.tar", ("1.json", SAMPLE), links=(("1.png", kind),))
    (found,) = open_upload(sample).found
    assert isinstance(found, BadItem)
    assert found.reason == "its .png is a link, which is not followed"


@pytest.mark.parametrize(
    "text",
    [
        {"data": [{"image": "a.png", **ASKED}]},
        {"version": 1, "data": [{"image": "a.png", **ASKED}]},
        [{"image": "a.png", **ASKED}],
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_packed_folder_may_hold_any_list_of_rows(
    tmp_path: Path, text: object, indent: int | None
) -> None:
    data = json.dumps(text, indent=indent).encode()
    (found,) = found_in(tmp_path / "a.tar", ("a.png", picture()), ("data.json", data))
    assert isinstance(found, Item)
    assert found.image == picture()


def test_a_packed_folder_may_hold_lines_in_a_file_of_json(tmp_path: Path) -> None:
    line = json.dumps({"image": "a.png", **ASKED}).encode()
    members = [("a.png", picture()), ("data.json", line + b"\r\n" + line)]
    assert [type(one) for one in found_in(tmp_path / "a.tar", *members)] == [Item, Item]


@pytest.mark.parametrize("note", ["README.dataset.txt", "classes.txt", "cat/names.mat"])
def test_notes_beside_classes_are_no_samples(tmp_path: Path, note: str) -> None:
    members = [
        (note, b"x"),
        ("cat/Thumbs.db", b"x"),
        ("cat/license.png", picture()),
    ]
    found = list(open_upload(packed(tmp_path / "a.tar", *members), columns=ASKING).found)
    assert [one.answers for one in found if isinstance(one, Item)] == [("cat",)]
    assert len(found) == 1


def test_what_is_said_of_a_picture_is_a_sample_wherever_it_stands(tmp_path: Path) -> None:
    members = [("cat/1.png", picture()), ("cat/2.png", picture()), ("cat/1.cls", b"3")]
    source = open_upload(packed(tmp_path / "a.tar", *members), columns=ASKING)
    assert source.layout == "WebDataset"


@pytest.mark.parametrize("first", ["[Content_Types].xml", "mimetype"])
def test_a_table_of_an_office_program_is_told(tmp_path: Path, first: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr(first, "<Types/>")
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    with pytest.raises(InvalidDatasetError, match="office program: save its table as CSV"):
        open_upload(tmp_path / "a.xlsx")
