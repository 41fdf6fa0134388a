from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt
from app.method.steering.greedy import generate_encoded
from app.method.steering.injection import inject
from tests.fakes.models.backbones import tiny_backbone, tiny_examples
from tests.fakes.models.generation import generate

EXAMPLES = tiny_examples(8)
Shifts = Callable[..., Tensor]


@pytest.fixture
def prompts(backbone: Backbone) -> list[PromptText]:
    return [
        build_prompt(backbone, e.question, e.pictures, demonstrations=EXAMPLES[4 : 4 + index])
        for index, e in enumerate(EXAMPLES[:3])
    ]


def test_a_batch_answers_like_each_prompt_alone(
    backbone: Backbone, prompts: list[PromptText], random_shifts: Shifts
) -> None:
    shifts = random_shifts(3)
    shifts[1] = 0.0
    together = generate(backbone, prompts, shifts=shifts, max_new_tokens=6)
    for row, prompt in enumerate(prompts):
        alone = generate(backbone, [prompt], shifts=shifts[row : row + 1], max_new_tokens=6)
        assert alone[0] == together[row]
    assert together[1] == generate(backbone, [prompts[1]], max_new_tokens=6)[0]


def test_cached_features_give_the_same_answers(
    backbone: Backbone, prompts: list[PromptText], random_shifts: Shifts
) -> None:
    encoded = FeatureCache(backbone).encode(prompts)
    assert "mm_encoder_outputs" in encoded.inputs
    shifts = random_shifts(3)
    found = generate_encoded(backbone, encoded, shifts=shifts, max_new_tokens=6)
    wanted = generate(backbone, prompts, shifts=shifts, max_new_tokens=6)
    assert found == [one.token_ids for one in wanted]


def test_an_answer_stops_at_the_end_of_the_turn() -> None:
    backbone = tiny_backbone(seed=3)
    prompt = build_prompt(backbone, "is it red?", EXAMPLES[0].pictures)
    free = generate(backbone, [prompt], max_new_tokens=8)[0]
    assert (free.finish_reason, len(free.token_ids)) == ("length", 8)
    # Turning the head's rows makes the end of the turn what came first before.
    head = backbone.model.get_submodule("lm_head")
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.weight[backbone.answer_format.end_token_id] = head.weight[free.token_ids[0]] * 2
    ended = generate(backbone, [prompt, prompt], max_new_tokens=8)
    assert [(answer.token_ids, answer.text) for answer in ended] == [((), "")] * 2


def test_steering_inside_a_steered_block_adds_up(
    backbone: Backbone, prompts: list[PromptText], random_shifts: Shifts
) -> None:
    shifts = random_shifts(1)
    with inject(backbone.model, shifts):
        found = generate(backbone, prompts, shifts=shifts, max_new_tokens=4)
    assert found == generate(backbone, prompts, shifts=shifts * 2, max_new_tokens=4)
