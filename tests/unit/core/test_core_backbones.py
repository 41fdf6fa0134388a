import json

import pytest

from app.core.backbones import BackboneDescription, require_same_backbone
from app.core.errors import JSON, IncompatibleBackboneError, InvalidInputError
from tests.fakes.vectors import make_description


def test_a_description_survives_json() -> None:
    description = make_description()
    fields = json.loads(json.dumps(description.to_dict()))
    assert BackboneDescription.from_dict({**fields, "new_field": 1}) == description


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", None),
        ("name", 3),
        ("num_layers", 0),
        ("hidden_size", "8"),
        ("num_heads", True),
        ("vocab_size", None),
        ("max_position_embeddings", -1),
        ("digests", ["x"]),
    ],
)
def test_a_wrong_field_is_refused(field: str, value: JSON) -> None:
    with pytest.raises(InvalidInputError):
        BackboneDescription.from_dict({**make_description().to_dict(), field: value})


def test_another_backbone_is_refused_with_both_fingerprints() -> None:
    require_same_backbone(wanted="a" * 64, found="a" * 64)
    with pytest.raises(IncompatibleBackboneError) as caught:
        require_same_backbone(wanted="a" * 64, found="b" * 64)
    assert caught.value.details == {"wanted": "a" * 64, "found": "b" * 64}
