import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlibrary_client import InvalidDatasetError, InvalidImageError
from vlibrary_client import uploads as uploads_module
from vlibrary_client.images import image_bytes, image_text
from vlibrary_client.uploads import METADATA_FILE, DatasetSource, parquet_file, write_parquet


def picture(mode: str = "RGB", side: int = 8) -> Image.Image:
    return Image.new(mode, (side, side), 1)


def png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    picture(side=side).save(buffer, format="PNG")
    return buffer.getvalue()


def read(source: DatasetSource) -> list[dict[str, Any]]:
    with parquet_file(source) as path:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def folder(tmp_path: Path, *lines: Mapping[str, object] | str) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "in" / "b.png").write_bytes(png(9))
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (tmp_path / METADATA_FILE).write_text("\n".join(texts), encoding="utf-8")
    return tmp_path


GOOD = {"file_name": "a.png", "question": "What colour?", "answer": "red"}


def test_a_folder_becomes_the_image_layout(tmp_path: Path) -> None:
    second = {"file_name": "in/b.png", "question": "¿Qué?", "answers": ["rojo", "red"]}
    rows = read(folder(tmp_path, GOOD, "", second))
    assert rows == [
        {
            "image": {"bytes": png(), "path": "a.png"},
            "question": "What colour?",
            "answers": ["red"],
        },
        {
            "image": {"bytes": png(9), "path": "in/b.png"},
            "question": "¿Qué?",
            "answers": ["rojo", "red"],
        },
    ]


def test_a_jsonl_file_reads_images_beside_it(tmp_path: Path) -> None:
    path = folder(tmp_path) / "items.jsonl"
    path.write_text(json.dumps({"image": "a.png", "question": "q", "answer": "x"}))
    assert [row["image"]["path"] for row in read(path)] == ["a.png"]


def test_items_are_told_apart_by_their_pictures() -> None:
    items: list[dict[str, Any]] = [
        {"image": picture(), "question": "q1", "answer": "x"},
        {"image": picture(), "question": "q2", "answer": "x"},
        {"image": picture(side=9), "question": "q1", "answer": "x"},
        {"image": png(), "question": "q1", "answer": "x", "image_id": "mine"},
    ]
    paths = [row["image"]["path"] for row in read(items)]
    assert paths[0] == paths[1] != paths[2]
    assert paths[3] == "mine"


def test_a_parquet_file_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"whatever")
    with parquet_file(path) as found:
        assert found == path
    assert path.exists()


def test_the_temporary_file_goes_away() -> None:
    with parquet_file([{"image": png(), "question": "q", "answer": "a"}]) as path:
        assert path.exists()
    assert not path.exists()


def test_many_items_are_written_in_small_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "BATCH_ITEMS", 10)
    items = ({"image": png(), "question": f"q{i}", "answer": "a"} for i in range(25))
    assert write_parquet(items, tmp_path / "d.parquet") == 25
    file = pq.ParquetFile(tmp_path / "d.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [10, 10, 5]


def test_large_images_make_smaller_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "BATCH_BYTES", 2 * len(png()))
    items = [{"image": png(), "question": f"q{i}", "answer": "a"} for i in range(3)]
    write_parquet(items, tmp_path / "d.parquet")
    assert pq.ParquetFile(tmp_path / "d.parquet").num_row_groups == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not a JSON object"),
        ("[1]", "line 1: not a JSON object"),
        ({"question": "q", "answer": "a"}, "wanted the image's file_name"),
        ({**GOOD, "file_name": "missing.png"}, "cannot read the image file"),
        ({**GOOD, "file_name": "../secret.png"}, "outside of the folder"),
        ({**GOOD, "file_name": "/etc/hostname"}, "outside of the folder"),
        ({**GOOD, "question": " "}, "wanted a question"),
        ({**GOOD, "question": 3}, "wanted a question"),
        ({**GOOD, "question": "\ud800"}, "wanted a question"),
        ({**GOOD, "answer": None}, "wanted an answer"),
        ({**GOOD, "answers": []}, "wanted an answer"),
        ({**GOOD, "answers": ["a", ""]}, "an answer is empty"),
    ],
)
def test_an_unusable_line_is_named(
    tmp_path: Path, line: dict[str, object] | str, message: str
) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "data").mkdir()
    with pytest.raises(InvalidDatasetError, match=message):
        read(folder(tmp_path / "data", line))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "no items"),
        ([3], "item 0: wanted a mapping"),
        ([{"question": "q"}], "item 0: wanted a mapping"),
        ([{"image": 3, "question": "q", "answer": "a"}], "item 0: wanted an image"),
    ],
)
def test_an_unusable_item_is_named(items: list[dict[str, object]], message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        read(items)


@pytest.mark.parametrize("name", ["missing.parquet", "missing.jsonl", "missing", "."])
def test_a_source_that_is_missing_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidDatasetError, match="does not exist"):
        read(tmp_path / name)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F", "HSV", "YCbCr"])
def test_every_kind_of_picture_can_be_sent(mode: str) -> None:
    with Image.open(io.BytesIO(image_bytes(picture(mode)))) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (8, 8))


def test_bytes_paths_and_data_urls_are_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    assert {image_text(source) for source in (png(), path, str(path), url)} == {image_text(png())}


@pytest.mark.parametrize(
    "source",
    ["http://host/a.png", "https://host/a.png", "data:image/png,x", "data:x;base64,=", "/no/file"],
)
def test_an_image_that_is_not_here_is_refused(source: str) -> None:
    with pytest.raises(InvalidImageError):
        image_bytes(source)
