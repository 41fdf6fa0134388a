"""Packed data sets are read as the folders that they hold."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.files.layouts import ASKED, items, picture, table, vqa_folder
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts import archives
from vlibrary_client.layouts.items import BadItem, Item
from vlibrary_client.layouts.sources import open_upload


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


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json"])
def test_a_packed_folder_may_hold_any_table(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(picture())
    row = {"image": "images/a.png", **ASKED}
    path = folder / f"test.{kind}"
    if kind == "parquet":
        table(path, [row])
    elif kind == "csv":
        path.write_text(",".join(row) + "\n" + ",".join(row.values()))
    else:
        path.write_text(json.dumps([row] if kind == "json" else row))
    (found,) = open_upload(zipped(tmp_path / "set.zip", folder)).found
    assert isinstance(found, Item)
    assert (found.image, found.split) == (picture(), "test")


def test_the_vqa_challenges_files_may_be_packed(tmp_path: Path) -> None:
    folder = tmp_path / "vqa"
    folder.mkdir()
    first, *_ = open_upload(zipped(tmp_path / "vqa.zip", vqa_folder(folder))).found
    assert isinstance(first, Item)
    assert (first.answers, first.image) == (("red", "red"), picture(kind="JPEG"))


def test_samples_may_have_questions_in_a_file_of_their_own(tmp_path: Path) -> None:
    members = {"1.png": picture(), "1.question.txt": b"q\n", "1.answer.txt": b"a\r\n"}
    (found,) = items(packed(tmp_path / "a.tar", members))
    assert (found.question, found.answers) == ("q", ("a",))
    named = {"1.png": picture(), "1.questions.json": json.dumps(ASKED).encode()}
    assert len(items(packed(tmp_path / "b.tar", named))) == 1


def test_a_packed_file_that_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ASKED).encode() * 100))
    with pytest.raises(InvalidDatasetError, match="a gzip file that holds no tar: unpack it"):
        open_upload(path)


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
