"""Packed data sets are read as the folders that they hold."""

import errno
import gzip
import io
import json
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Mapping
from contextlib import suppress
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


def test_an_archive_for_which_there_is_no_room_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    member = {"metadata.jsonl": json.dumps({"file_name": "a.png", **ASKED}).encode()}
    path = packed(tmp_path / "photos.tar", {**member, "a.png": picture()})
    monkeypatch.setattr(archives, "_copy", full)
    with pytest.raises(OSError, match="No space left"):
        list(open_upload(path).found)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", SAMPLES)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InvalidDatasetError, match="damaged or cut short"):
        list(open_upload(path).found)


class Named(zipfile.ZipInfo):
    """A member whose name is written in these bytes, without a word on how."""

    __slots__ = ("written",)
    written: bytes

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - Python's own
        return self.written, self.flag_bits


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Größe/é.png".encode(), "Größe/é.png"),
        (unicodedata.normalize("NFD", "Größe/é.png").encode(), "Größe/é.png"),
        ("Größe/é.png".encode("cp437"), "Größe/é.png"),
        (b"in\\a.png", "in/a.png"),
    ],
)
def test_names_in_a_zip_are_those_that_were_meant(
    tmp_path: Path, written: bytes, meant: str
) -> None:
    path = tmp_path / "a.zip"
    member = Named("any")
    member.written = written
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, picture())
        archive.writestr("metadata.jsonl", json.dumps({"file_name": meant, **ASKED}))
    (found,) = open_upload(path).found
    assert isinstance(found, Item), found


@pytest.mark.parametrize("kind", ["deflate", "lzma", "gzip"])
def test_damage_in_any_packing_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    members = {f"{number}.png": picture(number) for number in range(30)}
    if kind == "gzip":
        packed(path, members, "w:gz")
    else:
        method = zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data * 9)
    whole = path.read_bytes()
    for place in range(30, 130, 7):
        path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
        with suppress(InvalidDatasetError):
            list(open_upload(path).found)


@pytest.mark.parametrize(
    ("flags_and_method", "words"),
    [
        (b"\1\0\0\0", "is encrypted: unpack it first"),
        (b"\0\0\x09\0", "is packed by Deflate64, which is not read"),
    ],
)
def test_a_zip_that_cannot_be_read_is_told(
    tmp_path: Path, flags_and_method: bytes, words: str
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.jsonl", "{}")
    data = bytearray(path.read_bytes())
    for head, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(head) + place
        data[start : start + 4] = flags_and_method
    path.write_bytes(data)
    with pytest.raises(InvalidDatasetError, match=words):
        open_upload(path)


def test_a_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/hostname")
        archive.writestr("metadata.jsonl", json.dumps({"file_name": "a.png", **ASKED}))
    (found,) = open_upload(tmp_path / "a.zip").found
    assert isinstance(found, BadItem)
    assert "No such file" in found.reason


def test_a_sample_may_name_its_picture_in_its_fields(tmp_path: Path) -> None:
    fields = json.dumps({"image": "a/1.jpg", **ASKED}).encode()
    members = {"a/1.jpg": picture(kind="JPEG"), "a/1.json": fields}
    (found,) = items(packed(tmp_path / "a.tar", members))
    assert (found.image, found.image_name) == (picture(kind="JPEG"), "a/1.jpg")


@pytest.mark.parametrize("ending", ["jfif", "jpe"])
def test_a_sample_may_have_its_picture_under_a_rare_ending(tmp_path: Path, ending: str) -> None:
    members = {f"1.{ending}": picture(kind="JPEG"), "1.json": json.dumps(ASKED).encode()}
    assert items(packed(tmp_path / "a.tar", members))[0].image == picture(kind="JPEG")


@pytest.mark.parametrize("ending", ["tar", "tgz", "tar.gz"])
def test_a_folder_may_hold_packed_samples(tmp_path: Path, ending: str) -> None:
    mode = "w" if ending == "tar" else "w:gz"
    packed(
        tmp_path / f"test-0000.{ending}",
        {"1.png": picture(), "1.json": json.dumps(ASKED).encode()},
        mode,
    )
    assert [one.split for one in items(tmp_path)] == ["test"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (["metadata.csv", "metadata.jsonl"], "the archive has metadata.csv and metadata.jsonl"),
        (["in/metadata.csv", "in/metadata.jsonl"], "the folder in has metadata.csv and"),
        (["in/dataset_info.json"], "no data set in the archive: wanted"),
    ],
)
def test_where_an_archive_was_unpacked_is_not_told(
    tmp_path: Path, members: list[str], words: str
) -> None:
    path = packed(tmp_path / "a.tar", dict.fromkeys(members, b"[]"))
    with pytest.raises(InvalidDatasetError) as caught:
        list(open_upload(path).found)
    assert caught.value.message.startswith(words)
