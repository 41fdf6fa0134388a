"""Folders of pictures are read as they lie on disks, and no path leads out of them."""

import json
import unicodedata
from pathlib import Path

import pytest

from tests.fakes.files.layouts import ASKED, items, picture, read, table
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts.items import BadItem, Item
from vlibrary_client.layouts.sources import open_source


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


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "gone.png", "file:///etc/a", "link.png"]
)
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


def test_links_are_followed_as_downloads_from_a_hub_have_them(tmp_path: Path) -> None:
    blobs = folder_of(tmp_path / "blobs", ["f00d"], ["images/a.png"], metadata="c0de")
    snapshot = tmp_path / "snapshots" / "1"
    (snapshot / "train" / "images").mkdir(parents=True)
    (snapshot / "train" / "metadata.jsonl").symlink_to(blobs / "c0de")
    (snapshot / "train" / "images" / "a.png").symlink_to(blobs / "f00d")
    (snapshot / "test").symlink_to(snapshot / "train")
    (snapshot / "test" / "back").symlink_to(snapshot)
    assert [(one.split, one.image) for one in items(snapshot)] == [
        ("test", picture()),
        ("train", picture()),
    ]


def test_an_address_of_a_file_is_its_path(tmp_path: Path) -> None:
    root = folder_of(tmp_path, ["a b.png"], [(tmp_path / "a b.png").as_uri()])
    assert items(root)[0].image == picture()


def test_paths_may_count_from_the_folder_that_was_named(tmp_path: Path) -> None:
    root = folder_of(
        tmp_path, ["images/a.png", "b.png"], ["images/a.png"], metadata="annotations/metadata.jsonl"
    )
    assert items(root)[0].image == picture()
    (root / "annotations" / "images").mkdir()
    (root / "annotations" / "images" / "a.png").write_bytes(picture(1))
    assert items(root)[0].image == picture(1)


def test_an_empty_file_is_no_missing_picture(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.png"], ["a.png"])
    (tmp_path / "a.png").write_bytes(b"")
    (found,) = read(tmp_path)
    assert isinstance(found, BadItem)
    assert found.reason == "its image is an empty file"


@pytest.mark.parametrize("name", ["metadata.jsonl", "a.parquet", "questions.json"])
def test_a_link_that_leads_nowhere_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(InvalidDatasetError, match="cannot read the file: No such file"):
        read(tmp_path)
