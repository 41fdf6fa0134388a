import asyncio
import errno
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.core.identifiers import NAME_PATTERN
from tests.fakes.servers.scripted_server import ScriptedServer, dataset_json, problem
from vlibrary_client import (
    AsyncClient,
    Client,
    InvalidDatasetError,
    InvalidInputError,
)
from vlibrary_client.calls import arguments
from vlibrary_client.layouts import packing
from vlibrary_client.layouts.packing import parquet_file, write_parquet
from vlibrary_client.layouts.sources import DatasetSource


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
    (tmp_path / "metadata.jsonl").write_text("\n".join(texts), encoding="utf-8")
    return tmp_path


GOOD = {"file_name": "a.png", "question": "What colour?", "answer": "red"}


def test_a_folder_may_be_called_as_a_table_is(tmp_path: Path) -> None:
    # Programs that work in parts write one file each into it.
    parts = tmp_path / "set.parquet"
    parts.mkdir()
    rows = [{"image": png(), "question": "q", "answer": "a"}]
    pq.write_table(pa.Table.from_pylist(rows), parts / "part-0.parquet")
    assert [row["question"] for row in read(parts)] == ["q"]


def test_a_folder_becomes_the_image_layout(tmp_path: Path) -> None:
    second = {
        "file_name": "in/b.png",
        "question": "¿Qué?",
        "answers": ["rojo", "red"],
        "id": "two",
        "image_id": "b",
        "split": "test",
    }
    rows = read(folder(tmp_path, GOOD, "", second))
    nothing = {"id": None, "image_id": None, "split": None, "_problem": None}
    assert rows == [
        {
            "image": {"bytes": png(), "path": "a.png"},
            "question": "What colour?",
            "answers": ["red"],
            **nothing,
            "_place": "metadata.jsonl line 1",
        },
        {
            "image": {"bytes": png(9), "path": "in/b.png"},
            "question": "¿Qué?",
            "answers": ["rojo", "red"],
            **nothing,
            "id": "two",
            "image_id": "b",
            "split": "test",
            "_place": "metadata.jsonl line 3",
        },
    ]


def test_bad_lines_are_packed_with_their_reasons_on_demand(tmp_path: Path) -> None:
    source = folder(tmp_path, GOOD, "{", {**GOOD, "answer": " "})
    with pytest.raises(InvalidDatasetError, match=r"2 of 3 rows cannot be used: .* line 2: "):
        write_parquet(source, tmp_path / "d.parquet")
    assert write_parquet(source, tmp_path / "d.parquet", skip_bad=True) == 1
    rows = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert [row["_problem"] for row in rows] == [None, "not a JSON object", "its answer is empty"]


def test_a_parquet_file_with_other_names_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    rows = [{"image": png(), "problem": "q?", "solution": "a"}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with parquet_file(path, columns={"question": "problem", "answer": "solution"}) as found:
        assert [row["question"] for row in pq.read_table(found).to_pylist()] == ["q?"]


def test_a_jsonl_file_reads_images_beside_it(tmp_path: Path) -> None:
    path = folder(tmp_path) / "items.jsonl"
    path.write_text(json.dumps({"image": "a.png", "question": "q", "answer": "x"}))
    assert [row["image"]["path"] for row in read(path)] == ["a.png"]


@pytest.mark.parametrize(
    "image", ["a.png", ["a.png"], {"bytes": None, "path": "a.png"}], ids=["text", "list", "struct"]
)
def test_a_parquet_file_takes_the_pictures_beside_it_along(tmp_path: Path, image: object) -> None:
    path = folder(tmp_path) / "d.parquet"
    pq.write_table(pa.Table.from_pylist([{"image": image, "question": "q", "answer": "a"}]), path)
    assert [row["image"] for row in read(path)] == [{"bytes": png(), "path": "a.png"}]


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


def test_a_name_that_is_none_is_told_before_anything_is_packed() -> None:
    def items() -> Iterator[dict[str, object]]:
        raise AssertionError
        yield {}

    server = ScriptedServer([])
    with Client(transport=server.transport) as client:
        for name in ("My Photos", "photos/2024", "日本", "", "a" * 101):
            with pytest.raises(InvalidInputError, match="wanted a name of at most 100"):
                client.datasets.upload(items(), name=name)
    assert server.requests == []


def test_a_name_is_what_the_server_takes_for_one() -> None:
    assert f"^{arguments.NAME.pattern}$" == NAME_PATTERN


def test_where_there_is_no_room_to_pack_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(packing, "write_rows", full)
    with pytest.raises(OSError, match="TMPDIR names another folder") as caught:
        read([{"image": png(), "question": "q", "answer": "a"}])
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_was_packed_is_sent_again_and_goes_with_the_upload(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    busy, refused = problem(503, "busy", **{"retry-after": "0"}), problem(422, "invalid-dataset")
    server = ScriptedServer([busy, httpx.Response(201, json=dataset_json()), busy, refused])
    items = [{"image": png(), "question": "q", "answer": "a"}]

    async def upload() -> None:
        async with AsyncClient(transport=server.async_transport) as client:
            await client.datasets.upload(items, name="n")

    def send() -> None:
        if kind == "async":
            return asyncio.run(upload())
        with Client(transport=server.transport) as client:
            client.datasets.upload(items, name="n")
        return None

    send()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidDatasetError) as caught:
        send()
    assert caught.value.status == 422
    assert list(tmp_path.iterdir()) == []
    sent = [request.content for request in server.requests]
    assert sent[0] == sent[1]
    assert sent[0].startswith(b"PAR1")


def test_many_items_are_written_in_small_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "BATCH_ITEMS", 10)
    items = ({"image": png(), "question": f"q{i}", "answer": "a"} for i in range(25))
    assert write_parquet(items, tmp_path / "d.parquet") == 25
    file = pq.ParquetFile(tmp_path / "d.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [10, 10, 5]


def test_large_images_make_smaller_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BATCH_BYTES", 2 * len(png()))
    items = [{"image": png(), "question": f"q{i}", "answer": "a"} for i in range(3)]
    write_parquet(items, tmp_path / "d.parquet")
    assert pq.ParquetFile(tmp_path / "d.parquet").num_row_groups == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not a JSON object"),
        ("[1]", "line 1: not a JSON object"),
        ({**GOOD, "file_name": "missing.png"}, "cannot read the image file"),
        ({**GOOD, "file_name": "../secret.png"}, "outside of the folder"),
        ({**GOOD, "file_name": "/etc/hostname"}, "outside of the folder"),
        ({**GOOD, "question": " "}, "its question is empty"),
        ({**GOOD, "question": 3}, "wanted a question"),
        ({**GOOD, "question": "\ud800"}, "no Unicode text"),
        ({**GOOD, "answer": None}, "wanted an answer"),
        ({"file_name": "a.png", "question": "q", "answers": []}, "wanted an answer"),
        ({**GOOD, "answers": ["a", ""]}, "its answer is empty"),
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
        ([{"question": "q"}], "item 0: wanted an answer"),
        ([{"image": 3, "question": "q", "answer": "a"}], "item 0: wanted its image"),
    ],
)
def test_an_unusable_item_is_named(items: list[dict[str, object]], message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        read(items)


@pytest.mark.parametrize("name", ["missing.parquet", "missing.jsonl", "missing"])
def test_a_source_that_is_missing_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidDatasetError, match="does not exist"):
        read(tmp_path / name)
