from collections.abc import Mapping

import pytest

from app.core.errors import InvalidDatasetError
from app.core.splits import TEST, choose_split


@pytest.mark.parametrize(
    ("splits", "wanted", "chosen"),
    [
        ({}, None, None),
        ({}, "test", None),
        ({"train": 3, "test": 2}, None, "train"),
        ({"Train": 3, "test": 2}, None, "Train"),
        ({"training": 3, "test": 2}, None, "training"),
        ({"validation": 3}, None, "validation"),
        ({"train": 3, "test": 2}, "TEST", "test"),
        ({"Test": 3, "test": 2}, "test", "test"),
    ],
)
def test_the_split_that_is_meant(
    splits: Mapping[str, int], wanted: str | None, chosen: str | None
) -> None:
    assert choose_split(splits, wanted) == chosen


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(None, "wanted one by its name, found validation"), ("dev", "wanted dev, found validation")],
)
def test_what_is_not_clear_is_refused_with_what_there_is(wanted: str | None, message: str) -> None:
    with pytest.raises(InvalidDatasetError, match=message):
        choose_split({"validation": 3, "test": 2}, wanted)


def test_what_is_usual_depends_on_the_purpose() -> None:
    splits = {"train": 3, "Test": 2}
    assert choose_split(splits, usual=(TEST,)) == "Test"
    assert choose_split({"dev": 3}, usual=(TEST,)) == "dev"
    with pytest.raises(InvalidDatasetError, match="wanted one by its name, found train"):
        choose_split({"train": 3, "dev": 2}, usual=(TEST,))


@pytest.mark.parametrize(("wanted", "first"), [(None, "train"), ("TRAIN", "Train")])
def test_of_several_that_may_be_meant_none_is_left_out_unsaid(
    wanted: str | None, first: str
) -> None:
    with pytest.raises(InvalidDatasetError, match=r"found Train \(3\), train \(2\)"):
        choose_split({"Train": 3, "train": 2}, wanted)
    assert choose_split({"Train": 3, "train": 2}, first) == first
