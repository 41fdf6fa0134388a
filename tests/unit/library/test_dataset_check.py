import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import InvalidDatasetError
from app.library.uploads import dataset_conversion
from tests.fakes.files.uploads import IMAGE, convert, picture, refused, rows, verdict, write
from vlibrary_client.layouts.packing import parquet_file


def check(path: Path, **options: bool) -> dict[str, Any]:
    found = verdict(path, **options)
    assert "report" in found, found
    report: dict[str, Any] = found["report"]
    return report


def counts(path: Path) -> tuple[int, int]:
    report = check(path)
    return report["num_items"], report["num_images"]


def test_a_good_file_is_converted_in_a_process_of_its_own(tmp_path: Path) -> None:
    report = convert(write(tmp_path, rows(5)))
    assert (report.layout, report.num_items, report.num_images) == ("Parquet", 5, 2)
    assert (report.num_answers, report.splits, report.num_skipped) == (5, {}, 0)
    stored = pq.read_table(tmp_path / "stored.parquet").to_pylist()
    assert [row["question"] for row in stored] == [row["question"] for row in rows(5)]
    assert [row["_place"] for row in stored] == [f"row {number}" for number in range(5)]
    assert stored[0]["image"]["bytes"] == picture(0)
    assert stored[0]["pixels"] == stored[2]["pixels"] != stored[1]["pixels"]
    assert stored[0]["image_id"] == stored[2]["image_id"] != stored[1]["image_id"]


def test_equal_items_make_equal_files(tmp_path: Path) -> None:
    convert(write(tmp_path, rows(5)))
    first = (tmp_path / "stored.parquet").read_bytes()
    convert(write(tmp_path, rows(5), compression="gzip"))
    assert (tmp_path / "stored.parquet").read_bytes() == first


def test_what_was_noticed_when_a_set_was_packed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    row = {"file_name": "a.png", "question": "q", "answer": "a"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    (tmp_path / "test.jsonl").write_text("{}")
    with parquet_file(tmp_path) as path:
        assert check(path)["notes"] == ("files are not read: test.jsonl",)


@pytest.mark.parametrize("notes", ["no JSON", "{}", "7"])
def test_a_file_may_say_anything_of_how_it_was_packed(tmp_path: Path, notes: str) -> None:
    path = write(tmp_path, rows(3))
    told = pq.read_table(path).replace_schema_metadata({"vlibrary.notes": notes})
    pq.write_table(told, path)
    assert check(path)["notes"] == ()


def test_bad_rows_are_counted_and_named_and_left_out_on_demand(tmp_path: Path) -> None:
    items = rows(40)
    items[7]["answer"] = " "
    items[30]["image"] = {"bytes": picture()[:-30], "path": None}
    path = write(tmp_path, items)
    message = refused(path)
    assert "2 of 40 rows cannot be used: row 7: its answer is empty; row 30: " in message
    assert "skip_bad" in message
    report = check(path, skip_bad=True)
    assert (report["num_items"], report["num_skipped"]) == (38, 2)
    assert [row["place"] for row in report["bad_rows"]] == ["row 7", "row 30"]
    assert "damaged" in report["bad_rows"][1]["reason"]


def test_leaving_rows_out_is_no_advice_where_none_would_stay(tmp_path: Path) -> None:
    message = refused(write(tmp_path, [{**row, "answer": " "} for row in rows(3)]))
    assert "3 of 3 rows cannot be used" in message
    assert "skip_bad" not in message


@pytest.mark.parametrize(
    "empty", [None, {"bytes": None, "path": None}, {"bytes": b"", "path": "x"}]
)
def test_rows_without_a_picture_are_refused_left_out_or_taken(
    tmp_path: Path, empty: dict[str, Any] | None
) -> None:
    items = rows(10)
    for place in (2, 3, 9):
        items[place]["image"] = empty
    path = write(tmp_path, items)
    assert "3 of 10 rows have no picture, the first is row 2" in refused(path)
    assert "looked for in image, images, file_name, image_path" in refused(path)
    taken = check(path, text_only=True)
    assert (taken["num_items"], taken["num_text_only"], taken["num_skipped"]) == (10, 3, 0)
    left_out = check(path, skip_bad=True)
    assert (left_out["num_items"], left_out["num_text_only"], left_out["num_skipped"]) == (7, 0, 3)
    assert left_out["bad_rows"] == [
        {"place": f"row {place}", "reason": "it has no picture"} for place in (2, 3, 9)
    ]
    assert taken["bad_rows"] == []


def test_splits_are_counted_and_rows_without_one_are_to_train_on(tmp_path: Path) -> None:
    schema = pa.schema(
        [("image", IMAGE)] + [(name, pa.string()) for name in ("question", "answer", "split")]
    )
    splits = ["test", None, "train", "", "test"]
    items = [{**row, "split": split} for row, split in zip(rows(5), splits, strict=True)]
    assert check(write(tmp_path, items, schema))["splits"] == {"test": 2, "train": 3}


def test_a_picture_is_one_picture_whatever_it_is_called(tmp_path: Path) -> None:
    path = write(tmp_path, rows(4))
    ids = pa.array(["a", "b", "c", None])
    pq.write_table(pq.read_table(path).append_column("image_id", ids), path)
    check(path)
    stored = pq.read_table(tmp_path / "stored.parquet").to_pylist()
    assert [row["image_id"] for row in stored] == ["a", "b", "a", "b"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_each_image_format_is_accepted(tmp_path: Path, kind: str) -> None:
    items = [{**rows(1)[0], "image": {"bytes": picture(kind=kind), "path": None}}]
    assert counts(write(tmp_path, items)) == (1, 1)


def test_several_answers_and_foreign_columns_are_accepted(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.large_binary())])),
            ("question", pa.large_string()),
            ("answers", pa.large_list(pa.string())),
            ("note", pa.int64()),
        ]
    )
    items = [{"image": {"bytes": picture()}, "question": "q", "answers": ["a", "b"], "note": 1}]
    assert counts(write(tmp_path, items, schema)) == (1, 1)


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("id", pa.array(["a", "x" * 201]), "row 1: its id has more than 200"),
        ("image_id", pa.array([" ", None]), "row 0: its image_id is empty"),
        ("split", pa.array([None, "a\0"]), "row 1: its split has a NUL"),
        ("id", pa.array([1.5, 2.5]), "wanted id as text or a whole number, found float"),
        ("image_id", pa.array([["a"], ["b"]]), "wanted image_id as text or a whole number"),
    ],
)
def test_labels_have_bounds_as_texts_have(
    tmp_path: Path, *, column: str, values: pa.Array, reason: str
) -> None:
    path = write(tmp_path, rows(2))
    pq.write_table(pq.read_table(path).append_column(column, values), path)
    assert reason in refused(path)


def test_labels_may_be_numbers_or_missing(tmp_path: Path) -> None:
    path = write(tmp_path, rows(2))
    table = pq.read_table(path).append_column("id", pa.array([1, 2]))
    pq.write_table(table.append_column("split", pa.array(["train", None])), path)
    assert check(path)["num_items"] == 2


def test_many_row_groups_are_one_data_set(tmp_path: Path) -> None:
    assert check(write(tmp_path, rows(50), row_group_size=3))["num_items"] == 50


def test_a_refusal_comes_back_from_the_process(tmp_path: Path) -> None:
    items = rows(3)
    items[2]["question"] = " "
    with pytest.raises(InvalidDatasetError, match="row 2: its question is empty"):
        convert(write(tmp_path, items))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": None}, "wanted a question of text"),
        ({"question": " "}, "question is empty"),
        ({"question": "x" * 4001}, "question has more"),
        ({"question": "a\0"}, "NUL"),
        ({"answer": None}, "wanted an answer"),
        ({"answer": "x" * 1001}, "answer has more"),
        ({"image": {"bytes": None, "path": "/etc/passwd"}}, "a path alone is never followed"),
        ({"image": {"bytes": b"<svg >", "path": None}}, "found SVG"),
        ({"image": {"bytes": picture(kind="GIF"), "path": None}}, "found GIF"),
        ({"image": {"bytes": picture(kind="TIFF"), "path": None}}, "found TIFF"),
        ({"image": {"bytes": picture(size=(7, 7)), "path": None}}, "sides have 8 to"),
        ({"image": {"bytes": picture(size=(400, 10)), "path": None}}, "as long as wide"),
        ({"image": {"bytes": picture(size=(5001, 4000)), "path": None}}, "pixels"),
        ({"image": {"bytes": bytes(11 * 1024 * 1024), "path": None}}, "bytes"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    items = rows(3)
    items[1].update(change)
    message = refused(write(tmp_path, items))
    assert reason in message
    assert "1 of 3 rows cannot be used: row 1: " in message


def test_a_decompression_bomb_is_refused_unopened(tmp_path: Path) -> None:
    bomb = bytearray(picture())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    items = [{**rows(1)[0], "image": {"bytes": bytes(bomb), "path": None}}]
    start = time.process_time()
    assert "image" in refused(write(tmp_path, items))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["question", "image"], "found the columns question, image"),
        (["problem", "solution", "image"], "found the columns problem, solution, image"),
        (["question", "answer", *(f"x{number}" for number in range(520))], "512 columns"),
    ],
)
def test_other_columns_are_refused_and_listed(tmp_path: Path, names: list[str], found: str) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.schema([(name, pa.string()) for name in names]).empty_table(), path)
    assert found in refused(path)


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    names = ["image", "question", "question", "answer"]
    columns = [pa.array([{"bytes": picture(), "path": None}], IMAGE), *(pa.array(["x"]),) * 3]
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_arrays(columns, names=names), path)
    assert "twice" in refused(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "no items" in refused(write(tmp_path, []))


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_conversion, "MAX_ITEMS", 3)
    assert "rows" in refused(write(tmp_path, rows(4)))


def test_too_many_answers_are_refused(tmp_path: Path) -> None:
    fields = [("image", IMAGE), ("question", pa.string()), ("answers", pa.list_(pa.string()))]
    items = [{**rows(1)[0], "answers": ["a"] * 65}]
    assert "answers" in refused(write(tmp_path, items, pa.schema(fields)))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1PAR1PAR1", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(data)
    refused(path)
