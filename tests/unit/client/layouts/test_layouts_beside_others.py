"""Files of a folder that are no part of its data set, and who is told of them."""

import json
import shutil
from pathlib import Path

from tests.fakes.files.layouts import ASKED, vqa_folder
from vlibrary_client.layouts.packing import parquet_file
from vlibrary_client.layouts.sources import open_source


def told(path: Path) -> tuple[str, list[str]]:
    source = open_source(path)
    assert list(source.found)
    return source.layout, source.notes


def test_what_a_folder_has_besides_its_data_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(ASKED))
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert told(tmp_path) == ("folder of JSON lines", [])
    (tmp_path / "val.csv").write_text("question,answer\nq,a\n")
    assert told(tmp_path) == ("folder of JSON lines", ["files are not read: val.csv"])
    (tmp_path / "metadata.jsonl").write_text(json.dumps(ASKED))
    assert told(tmp_path) == ("image folder", ["files are not read: train.jsonl, val.csv"])


def test_what_hugging_face_keeps_beside_its_tables_is_no_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "cache-1.jsonl").write_text(json.dumps(ASKED))
    (tmp_path / "cache-0123456789abcdef.arrow").write_text("an intermediate result")
    assert told(tmp_path) == ("folder of JSON lines", [])


def test_what_lies_beside_questions_and_annotations_is_told(tmp_path: Path) -> None:
    (vqa_folder(tmp_path) / "captions_train2014.json").write_text("[]")
    layout, notes = told(tmp_path)
    assert layout == "VQA questions and annotations"
    assert notes == ["files are not read: captions_train2014.json"]


def test_what_is_not_read_is_told_of_packed_folders_also_by_the_sdk(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data.jsonl").write_text(json.dumps(ASKED))
    (tmp_path / "a" / "val.csv").write_text("question,answer\nq,a\n")
    packed = Path(shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "a"))
    assert told(packed)[1] == told(tmp_path / "a")[1]
    with parquet_file(packed) as path:
        assert told(path)[1] == ["files are not read: val.csv"]
