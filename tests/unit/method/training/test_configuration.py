import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.core.errors import InvalidInputError
from app.method.training.configuration import TrainingConfig, TrainingSettings, read_settings


def test_settings_survive_json() -> None:
    config = TrainingConfig(shots=4, keep="last", instruction="Be brief.", seed=4)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.model_dump()))) == config
    assert TrainingConfig.from_dict({}) == TrainingConfig()
    assert TrainingConfig.from_dict({"temperature": 2}) == TrainingConfig(temperature=2.0)


def test_direct_settings_are_checked_too() -> None:
    with pytest.raises(ValidationError, match="shots"):
        TrainingConfig(shots=0)
    with pytest.raises(InvalidInputError, match="shots is out of range"):
        TrainingConfig().changed(shots=0)
    assert TrainingConfig(shots=2).changed(seed=3) == TrainingConfig(shots=2, seed=3)


def test_every_setting_says_what_it_is_and_what_it_may_be() -> None:
    described = TrainingConfig.model_json_schema()["properties"]
    for name, field in described.items():
        kinds = [field, *field.get("anyOf", ())]
        bounds = {"maximum", "maxLength", "enum"}
        is_flag = field.get("type") == "boolean"
        assert field["description"], name
        assert is_flag or any(bounds & set(kind) for kind in kinds), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"shots": 0},
        {"shots": 2.5},
        {"shots": True},
        {"epochs": "3"},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"vector_learning_rate": float("inf")},
        {"synergy_weight": -1},
        {"teacher_top_k": 16},
        {"seed": -1},
        {"keep": "first"},
        {"branches": None},
        {"instruction": 3},
        {"instruction": "x" * 5000},
        {"gradient_checkpointing": 1},
        {"mimicry_weight": 0, "supervision_weight": 0},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="wanted"):
        TrainingConfig.from_dict(wrong)


def test_unknown_settings_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"Unknown training settings: a, z$"):
        TrainingConfig.from_dict({"z": 1, "a": 2, "shots": 3})


def test_what_may_be_meant_is_said() -> None:
    wanted = r"Unknown training settings: branchs, epoch, z \(branches, epochs\?\)$"
    wrong = {"epoch": 1, "branchs": "mlp", "z": 1, "seed": 2}
    with pytest.raises(InvalidInputError, match=wanted):
        TrainingConfig.from_dict(wrong)
    with pytest.raises(InvalidInputError) as refused:
        TrainingConfig.from_dict({f"{number} {'x' * 1000}": 1 for number in range(1000)})
    assert len(refused.value.message) < 500
    # What is read from HTTP says so as well.
    with pytest.raises(ValidationError, match=wanted.removesuffix("$")):
        TrainingSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("epochs=3", {"epochs": 3}),
        ("instruction=look = see", {"instruction": "look = see"}),
        ("epochs=null", {"epochs": None}),
        ("instruction=", {"instruction": ""}),
    ],
)
def test_a_setting_is_written_as_json_or_as_plain_text(
    text: str, wanted: dict[str, object]
) -> None:
    assert read_settings([text]) == wanted


def test_a_setting_without_a_value_or_with_two_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="wanted NAME=VALUE, found epochs"):
        read_settings(["epochs"])
    with pytest.raises(InvalidInputError, match="epochs is given twice"):
        read_settings(["epochs=1", "seed=2", "epochs=3"])
