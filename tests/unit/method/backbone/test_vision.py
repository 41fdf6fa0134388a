from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.core.errors import UnsupportedBackboneError
from app.method.backbone.vision import (
    ImageFeatures,
    encode_images,
    join_features,
    takes_precomputed,
    tower_states,
)
from app.method.steering.injection import inject
from tests.fakes.models.backbones import FAMILIES, row_of, tiny_inputs

Models = Callable[[str], PreTrainedModel]
PIXEL_KEYS = ("pixel_values", "image_sizes")
CROSS_ATTENDING = ("idefics", "mllama")
FED = [name for name in FAMILIES if name not in CROSS_ATTENDING]


def features_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> list[ImageFeatures]:
    with torch.no_grad():
        found = encode_images(model, inputs, count=2)
        if found is None:
            singles = [encode_images(model, row_of(inputs, r, rows=2), count=1) for r in range(2)]
            found = [single[0] for single in singles if single]
    return found


def fed(model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Any]:
    text = {key: value for key, value in inputs.items() if key not in PIXEL_KEYS}
    return {**text, **join_features(features_of(model, inputs))}


@pytest.mark.parametrize("family", FED)
def test_features_stand_in_for_pixels_exactly(
    family: str, model_of: Models, random_shifts: Callable[..., Tensor]
) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    assert takes_precomputed(model)
    with torch.no_grad(), inject(model, random_shifts(2)):
        wanted = model(**inputs).logits
        found = model(**fed(model, inputs)).logits
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", FED)
def test_generation_from_features_equals_generation_from_pixels(
    family: str, model_of: Models
) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    generate: Any = model.generate
    wanted = generate(**inputs, max_new_tokens=4, do_sample=False)
    found = generate(**fed(model, inputs), max_new_tokens=4, do_sample=False)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("family", FED)
def test_pictures_of_a_batch_are_told_apart(family: str, model_of: Models) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    first, second = features_of(model, inputs)
    assert not torch.allclose(first.summary, second.summary)
    with torch.no_grad():
        alone = encode_images(model, row_of(inputs, 1, rows=2), count=1)
    assert alone is not None
    torch.testing.assert_close(alone[0].summary, second.summary, atol=1e-5, rtol=0)
    assert second.num_bytes > 0


@pytest.mark.parametrize("family", CROSS_ATTENDING)
def test_cross_attending_families_give_tower_states(family: str, model_of: Models) -> None:
    model, inputs = model_of(family), tiny_inputs(family)
    assert not takes_precomputed(model)
    with torch.no_grad():
        states = tower_states(model, inputs, count=2)
        alone = tower_states(model, row_of(inputs, 1, rows=2), count=1)
    assert states.shape[0] == 2
    torch.testing.assert_close(states[1:], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(states[0], states[1])


def test_a_model_without_a_vision_tower_is_refused(model_of: Models) -> None:
    decoder = model_of("llava").get_submodule("model.language_model")
    assert isinstance(decoder, PreTrainedModel)
    with pytest.raises(UnsupportedBackboneError, match="wanted a vision tower"):
        tower_states(decoder, tiny_inputs("llava"), count=2)


def test_a_batch_whose_shares_cannot_be_told_is_left_to_the_caller(model_of: Models) -> None:
    inputs = tiny_inputs("internvl", rows=3)
    two_tiles_and_one = {**inputs, "input_ids": inputs["input_ids"][:2]}
    with torch.no_grad():
        assert encode_images(model_of("internvl"), two_tiles_and_one, count=2) is None
