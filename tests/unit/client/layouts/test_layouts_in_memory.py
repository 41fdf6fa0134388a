"""Tables that a program has in memory."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.fakes.files.layouts import ASKED, items, picture, read
from vlibrary_client import InvalidDatasetError
from vlibrary_client.layouts.items import BadItem

ROWS = [
    {"image": picture(shade), "question": "What?", "answer": answer}
    for shade, answer in ((1, "red"), (2, "blue"))
]


class DataFrame:
    """As pandas' own: it goes through the names of its columns, and can be none of Arrow's."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __iter__(self) -> Any:  # noqa: ANN401
        return iter(self._rows[0])

    def iterrows(self) -> Any:  # noqa: ANN401
        return enumerate(self._rows)

    def to_dict(self, orient: str = "dict") -> list[dict[str, Any]]:
        assert orient == "records"
        return self._rows

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise pa.ArrowInvalid("Could not convert a picture of Pillow")


@pytest.mark.parametrize("table", [pa.Table.from_pylist(ROWS), DataFrame(ROWS)])
def test_a_table_is_its_rows(table: Any) -> None:  # noqa: ANN401 - of any kind
    assert [one.answers for one in items(table)] == [("red",), ("blue",)]
    by_split = items({"train": table, "test": table})
    assert [one.split for one in by_split] == ["train", "train", "test", "test"]
    assert [one.image for one in by_split[:2]] == [row["image"] for row in ROWS]


def test_a_table_of_pandas_may_hold_pictures_of_pillow_and_gaps() -> None:
    seen = {"image": Image.new("RGB", (8, 8)), **ASKED, "split": float("nan")}
    good, bad = read(DataFrame([seen, {**seen, "answer": np.float64("nan")}]))
    assert not isinstance(good, BadItem)
    assert isinstance(bad, BadItem)


def as_pandas(*values: object) -> Any:  # noqa: ANN401
    """What pandas makes of lists in Parquet."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def test_lists_in_a_table_of_pandas_are_lists_wherever_they_stand() -> None:
    said = [("user", "What?"), ("assistant", "red")]
    turns = [
        {"role": role, "content": as_pandas({"type": "text", "text": text})} for role, text in said
    ]
    shown = as_pandas({"bytes": picture(), "path": None})
    choices = {"label": as_pandas("A", "B"), "text": as_pandas("blue", "red")}
    rows = [
        {"images": shown, "messages": as_pandas(*turns)},
        {"images": shown, "question": "What?", "choices": choices, "answer": "B"},
        {"images": shown, "question": "What?", "answers": as_pandas({"answer": "red"})},
    ]
    for found in items(DataFrame(rows)):
        assert (found.question, found.answers, found.image) == ("What?", ("red",), picture())


def test_columns_of_a_table_are_mapped_and_its_labels_named() -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"photo": [picture()], "question": ["What?"], "label": [1]})
    table = table.replace_schema_metadata(told)
    (found,) = items(table, columns={"image": "photo", "answer": "label"})
    assert (found.answers, found.image) == (("dog",), picture())
    with pytest.raises(InvalidDatasetError, match="there is no column picture; found the columns"):
        read(table, columns={"image": "picture", "answer": "label"})
