"""What columns of numbers stand for: labels by their names, numbers as somebody wrote them."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes.files.layouts import items, picture, read
from vlibrary_client.layouts.items import BadItem, Item
from vlibrary_client.layouts.values import as_written

LABEL = {"_type": "ClassLabel", "names": ["cat", "dog"]}
TEXT = {"_type": "Value", "dtype": "string"}


def answered(path: Path, answers: Any, feature: object = None) -> list[tuple[str, ...]]:  # noqa: ANN401
    """The answers of a Parquet file whose column `answers` is this one."""
    features = {"info": {"features": {"answers": feature}}}
    table = pa.table({"question": ["q"] * len(answers), "answers": answers})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    return [one.answers for one in items(path)]


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ([LABEL], [0, 1]),
        ({"_type": "Sequence", "feature": LABEL, "length": -1}, [0, 1]),
        ([{"answer": LABEL, "by": TEXT}], [{"answer": 0, "by": "a"}, {"answer": 1, "by": "b"}]),
        ({"_type": "List", "feature": {"answer": LABEL}}, [{"answer": 0}, {"answer": 1}]),
        ({"_type": "Sequence", "feature": {"answer": LABEL}}, {"answer": [0, 1]}),
    ],
)
def test_labels_are_named_wherever_they_stand(
    tmp_path: Path, feature: object, value: object
) -> None:
    assert answered(tmp_path / "a.parquet", pa.array([value]), feature) == [("cat", "dog")]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_numbers_of_few_bits_are_those_that_were_written(tmp_path: Path, kind: Any) -> None:  # noqa: ANN401
    numbers = [0.1, 2.5, 3.0, -7.25, 2048.0]
    alone = answered(tmp_path / "a.parquet", pa.array(numbers).cast(kind))
    assert alone == [("0.1",), ("2.5",), ("3",), ("-7.25",), ("2048",)]
    together = answered(tmp_path / "b.parquet", pa.array([numbers]).cast(pa.list_(kind)))
    assert together == [("0.1", "2.5", "3", "-7.25", "2048")]


def test_every_number_of_four_bytes_comes_back_as_it_was() -> None:
    numbers = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
    for number in numbers.view(np.float32):
        found = as_written(float(number), 4)
        assert isinstance(found, float)
        assert struct.pack("f", found) == struct.pack("f", float(number))


def test_numbers_and_arrays_of_numpy_are_read_as_python_has_them() -> None:
    rows: list[dict[str, Any]] = [
        {"answer": np.float32(0.1)},
        {"answer": np.int64(3)},
        {"answer": np.bool_(1)},
        {"answers": np.array(["red", "blue"])},
        {"answer": np.str_("red"), "answers": np.array([])},
        {"choices": ["red", "blue"], "answer": np.float64(1)},
    ]
    found = items([{"image": picture(), "question": "q", **row} for row in rows])
    answers = [one.answers for one in found]
    assert answers == [("0.1",), ("3",), ("yes",), ("red", "blue"), ("red",), ("blue",)]


class NAType:
    """As pandas writes a gap."""

    def __eq__(self, other: object) -> "NAType":  # type: ignore[override]
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_a_gap_of_pandas_is_a_gap() -> None:
    gaps = {"id": NAType(), "answers": NAType(), "messages": NAType(), "split": NAType()}
    rows: list[dict[str, Any]] = [
        {"image": picture(), "question": "q", "answer": "red", **gaps},
        {"image": picture(), "question": "q", "answer": NAType()},
        {"image": NAType(), "question": "q", "answer": "red"},
    ]
    first, second, third = read(rows)
    assert isinstance(first, Item)
    assert (first.answers, first.id, first.split) == (("red",), None, None)
    assert isinstance(second, BadItem)
    assert second.reason == "wanted an answer, or a list of answers, found none"
    assert isinstance(third, BadItem)
    assert third.reason.endswith("found NAType")


def test_what_pandas_writes_where_a_text_is_missing_is_a_gap() -> None:
    gaps = {"id": float("nan"), "split": np.float64("nan"), "image_id": float("nan")}
    rows: list[dict[str, Any]] = [
        {"image": picture(), "question": "q", "answer": "red", **gaps},
        {"image": picture(), "question": "q", "answer": float("nan")},
    ]
    first, second = read(rows)
    assert isinstance(first, Item)
    assert (first.id, first.split, first.image_id) == (None, None, None)
    assert isinstance(second, BadItem)
    assert second.reason == "wanted an answer, or a list of answers, found none"


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_is_no_answer(number: float) -> None:
    (found,) = read([{"image": picture(), "question": "q", "answer": number}])
    assert isinstance(found, BadItem)


def test_a_place_among_choices_may_be_a_float(tmp_path: Path) -> None:
    # One row without an answer makes floats of a column of places.
    table = pa.table({"question": ["q"], "choices": [["red", "blue"]], "answer": [1.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [one.answers for one in items(tmp_path / "a.parquet")] == [("blue",)]
