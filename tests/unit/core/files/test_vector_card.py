import base64
import json
from typing import Any

import numpy as np
import pytest

from app.core.errors import InvalidVectorFileError
from app.core.vectors.card import EvaluationCard, KeyCard, VectorCard, read_card

ROWS = np.eye(3, 6, dtype=np.float32)


def key(**changes: Any) -> KeyCard:  # noqa: ANN401 - any field
    fields = {"space": "backbone-ab-v2", "threshold": 0.5, "text_threshold": 0.9, "image_width": 3}
    return KeyCard.of(ROWS, **{**fields, **changes})


def test_a_card_comes_back_as_it_was_bit_for_bit() -> None:
    measured = EvaluationCard(
        dataset="d", split="held-out", scorer="s", items=9, accuracy=0.5, low=0.1, high=0.9
    )
    card = VectorCard(
        status="ready",
        shots=8,
        seed=3,
        hyper_parameters={"rate": 0.1},
        key=key(),
        evaluations=(measured,),
        library_versions={"torch": "2"},
        dataset_sha256="ab" * 32,
    )
    found = read_card(card.to_metadata())
    assert found == card
    assert found.key is not None
    assert found.key.matrix().tobytes() == ROWS.tobytes()


def test_a_file_that_says_nothing_has_no_card() -> None:
    assert read_card({"method": "m2iv"}) is None


def test_what_a_newer_version_adds_is_passed_over() -> None:
    assert read_card({"card": '{"shots": 4, "colour": "red"}'}) == VectorCard(shots=4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"shots": -1}',
        '{"shots": 2147483648}',
        '{"status": "retired"}',
        '{"key": {"space": "", "dimension": 1, "rows": "AAAAAA==", "threshold": 0}}',
        '{"key": {"space": "a\\n", "dimension": 1, "rows": "AAAAAA==", "threshold": 0}}',
        '{"key": {"space": "a", "dimension": 1, "rows": "AAAAAA==", "threshold": 1.5}}',
        "{",
    ],
)
def test_a_card_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidVectorFileError, match="card"):
        read_card({"card": text})


@pytest.mark.parametrize("place", ["dataset", "split", "scorer"])
def test_texts_that_no_database_takes_are_refused(place: str) -> None:
    texts = {"dataset": "d", "split": "a\nb", "scorer": "s"}
    numbers = {"items": 9, "accuracy": 0.5, "low": 0.1, "high": 0.9}
    assert read_card({"card": json.dumps({"evaluations": [{**texts, **numbers}]})})
    card = {"evaluations": [{**texts, place: "a\0b", **numbers}]}
    with pytest.raises(InvalidVectorFileError, match=f"evaluations.0.{place}"):
        read_card({"card": json.dumps(card)})


@pytest.mark.parametrize(
    "rows",
    [
        "?",
        base64.b64encode(b"123").decode(),
        base64.b64encode(np.full(6, np.nan, np.float32).tobytes()).decode(),
        base64.b64encode(np.zeros(6 * 66, np.float32).tobytes()).decode(),
        "",
    ],
)
def test_keys_that_are_no_rows_are_refused(rows: str) -> None:
    card = VectorCard(key=key().model_copy(update={"rows": rows}))
    with pytest.raises(InvalidVectorFileError, match="keys"):
        read_card(card.to_metadata())
