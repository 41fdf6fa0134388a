import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.core.errors import (
    ConfigurationError,
    InvalidDatasetError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
)
from app.core.pixels import PIXELS_VERSION
from app.method.evaluation.tasks.loading import load_examples
from app.method.evaluation.tasks.vl_icl import load_episodes
from app.method.training.demonstrations import hold_out
from tests.fakes.files import official


def png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, rows: list[dict[str, Any]], *, pixels: int | None = None) -> Path:
    table = pa.Table.from_pylist(rows)
    if pixels is not None:
        table = table.replace_schema_metadata({"vlibrary.pixels": str(pixels)})
    pq.write_table(table, path)
    return path


ROWS = [
    {
        "image": {"bytes": png(color), "path": f"{color}.png"},
        "question": f"is number {index} {color}?",
        "answers": ["yes", "yes", "no"],
        "split": split,
        "_place": f"metadata.jsonl line {index + 1}",
        "pixels": color * 3,
    }
    for index, (color, split) in enumerate(
        [("red", "train"), ("red", None), ("blue", "train"), ("blue", "Test")]
    )
]


def test_a_stored_data_set_is_read_by_its_split(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "data.parquet", ROWS))
    examples = load_examples(path)
    assert [example.question[:11] for example in examples] == [
        "is number 0",
        "is number 1",
        "is number 2",
    ]
    assert examples[0].id == "metadata.jsonl line 1"
    assert examples[0].image is examples[1].image
    assert examples[0].image_id == examples[1].image_id != examples[2].image_id
    assert examples[0].answers == ("yes", "yes", "no")
    assert examples[2].pictures[0].data == png("blue")
    assert len(load_examples(path, split="test")) == 1
    with pytest.raises(InvalidDatasetError, match=r"wanted dev, found train \(3\), Test \(1\)"):
        load_examples(path, split="dev")


def test_what_a_picture_shows_is_known_unless_decoding_has_changed(tmp_path: Path) -> None:
    current = write_parquet(tmp_path / "a.parquet", ROWS, pixels=PIXELS_VERSION)
    older = write_parquet(tmp_path / "b.parquet", ROWS, pixels=PIXELS_VERSION - 1)
    assert load_examples(str(current))[0].pictures[0].pixel_digest == "redredred"
    assert load_examples(str(older))[0].pictures[0].pixel_digest is None


def test_data_sets_of_earlier_versions_are_read(tmp_path: Path) -> None:
    rows = [{"image": png("red"), "question": "q", "answer": "a", "id": 7, "image_id": 3}]
    example = load_examples(str(write_parquet(tmp_path / "x.parquet", rows)))[0]
    assert (example.id, example.image_id, example.answers) == ("7", "3", ("a",))


def test_an_item_may_be_of_text_alone(tmp_path: Path) -> None:
    bare: dict[str, Any] = {"image": None, "question": "q", "answers": ["a"]}
    rows = [bare, ROWS[0]]
    examples = load_examples(str(write_parquet(tmp_path / "x.parquet", rows)))
    assert [len(example.pictures) for example in examples] == [0, 1]
    assert len({example.image_id for example in examples}) == 2


def test_a_text_that_is_asked_again_does_not_measure_what_it_taught(tmp_path: Path) -> None:
    rows = [{"image": None, "question": f"q{n % 8}", "answers": ["a"]} for n in range(32)]
    examples = load_examples(str(write_parquet(tmp_path / "x.parquet", rows)))
    parts = hold_out(examples, fraction=0.25, fewest=0, most=32, seed=0)
    training, measured = ({examples[place].question for place in part} for part in parts)
    assert len(training | measured) == 8
    assert measured
    assert not training & measured


def test_a_limit_chooses_at_random_by_seed(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": str(number)} for number in range(50)]
    path = str(write_parquet(tmp_path / "x.parquet", rows))
    chosen = [example.id for example in load_examples(path, limit=5, seed=1)]
    assert len(set(chosen)) == 5
    assert chosen == [example.id for example in load_examples(path, limit=5, seed=1)]
    assert chosen != [example.id for example in load_examples(path, limit=5, seed=2)]
    assert len(load_examples(path, limit=500)) == 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "line 1: wanted a question as text"),
        ({"answers": []}, "line 1: wanted answers as text"),
    ],
)
def test_broken_rows_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [{**ROWS[0], **changes}])
    with pytest.raises(InvalidDatasetError, match=message):
        load_examples(str(path))


def test_what_is_no_stored_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(InvalidDatasetError, match="cannot be read"):
        load_examples(str(tmp_path / "b.parquet"))
    with pytest.raises(NotFoundError, match="No such data set"):
        load_examples(str(tmp_path / "nowhere"))


def stored_file(folder: Path, megabytes: int) -> str:
    schema = pa.schema({"image": pa.binary(), "question": pa.string(), "answer": pa.string()})
    with pq.ParquetWriter(folder / "x.parquet", schema) as writer:
        for number in range(megabytes):
            image = number.to_bytes(4) + os.urandom((1 << 20) - 4)
            writer.write_table(
                pa.table({"image": [image], "question": ["q"], "answer": ["a"]}, schema=schema)
            )
    return str(folder / "x.parquet")


def cvqa_folder(folder: Path, megabytes: int) -> str:
    pictures = (os.urandom(1 << 20) for _ in range(megabytes))
    return f"cvqa:{official.cvqa_files(folder, count=megabytes, pictures=pictures)}"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what was used")
@pytest.mark.parametrize("write", [stored_file, cvqa_folder])
def test_a_data_set_is_not_held_in_memory_while_it_is_read(
    write: Callable[[Path, int], str], tmp_path: Path
) -> None:
    megabytes = 300
    script = (
        "import sys\n"
        "from app.method.evaluation.tasks.loading import load_examples\n"
        # The usage that `resource` tells of is also that of who started the process.
        "def used():\n"
        "    told = open('/proc/self/status').read()\n"
        "    return int(told.split('VmHWM:')[1].split()[0]) // 1024\n"
        "before = used()\n"
        "examples = load_examples(sys.argv[1], split=sys.argv[2] or None)\n"
        "print(len(examples), used() - before)\n"
    )
    told = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script, write(tmp_path, megabytes), "test" * (write is cvqa_folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    count, grown = map(int, told.stdout.split())
    assert count == megabytes
    assert grown < megabytes / 2


def test_pictures_for_which_there_is_no_room_are_no_broken_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = str(write_parquet(tmp_path / "x.parquet", ROWS))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StorageFullError, match="no room"):
            load_examples(path)
    assert len(load_examples(path)) == 3
    assert [one.name for one in tmp_path.iterdir()] == ["x.parquet"]


def test_easy_vqa_keeps_pictures_of_splits_apart() -> None:
    training = load_examples("easy-vqa", limit=40, seed=1)
    test = load_examples("easy-vqa", split="test", limit=20)
    assert len(training) == 40
    assert training[0].pictures[0].size == (64, 64)
    assert {example.answer for example in training} <= EASY_VQA_ANSWERS
    assert not {e.image_id for e in training} & {e.image_id for e in test}
    with pytest.raises(InvalidInputError, match="wanted train, fit, validation, test"):
        load_examples("easy-vqa", split="holdout")


EASY_VQA_ANSWERS = {
    *("circle", "rectangle", "triangle", "yes", "no"),
    *("red", "green", "blue", "black", "brown", "teal", "gray", "yellow"),
}


def test_recipes_are_chosen_on_training_pictures_that_nothing_is_fitted_to() -> None:
    fit, validation = (
        {example.image_id for example in load_examples("easy-vqa", split=split, limit=3000)}
        for split in ("fit", "validation")
    )
    assert not fit & validation
    assert len(validation) > 700
    # The same picture goes by one name, whichever part it is read through.
    assert fit | validation <= {one.image_id for one in load_examples("easy-vqa")}


def test_without_the_package_easy_vqa_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ConfigurationError, match="the package easy-vqa"):
        load_examples("easy-vqa")


def test_readers_load_no_torch() -> None:
    code = (
        "import app.method.evaluation.tasks.loading, app.method.evaluation.metrics, sys;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code


def test_some_queries_of_vl_icl_are_chosen_at_random_and_keep_their_demonstrations(
    tmp_path: Path,
) -> None:
    names = [f"textocr/{number}.jpg" for number in range(12)]
    entries = [{"image": [name], "question": "what is written?", "answer": name} for name in names]
    for part in ("query", "support"):
        official.write(tmp_path / "textocr" / f"{part}.json", entries)
    for name in names:
        official.write(tmp_path / name, official.picture(90))

    def shown(limit: int | None) -> dict[str, list[str]]:
        found = load_episodes(tmp_path, "textocr", shots=2, limit=limit, seed=3)
        return {one.query.id: [item.image_id for item in one.context] for one in found}

    some, everything = shown(4), shown(None)
    assert len(some) == 4
    assert list(some) != list(everything)[:4]
    assert some.items() <= everything.items()
