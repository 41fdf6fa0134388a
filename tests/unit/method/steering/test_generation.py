from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.core.errors import InvalidInputError
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.prompts import PromptText, build_prompt, encode_prompts
from app.method.steering.generation import Sampling, generate, generate_encoded
from app.method.steering.injection import inject
from tests.fakes.models.backbones import tiny_backbone, tiny_examples

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
    assert found == generate(backbone, prompts, shifts=shifts, max_new_tokens=6)


def test_an_answer_stops_at_the_end_of_the_turn() -> None:
    backbone = tiny_backbone(seed=3)
    prompt = build_prompt(backbone, "is it red?", EXAMPLES[0].pictures)
    free = generate(backbone, [prompt], max_new_tokens=8)[0]
    assert free.finish_reason == "length"
    assert len(free.token_ids) == 8
    # Turning the head's rows makes the end of the turn what came first before.
    head = backbone.model.get_submodule("lm_head")
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.weight[backbone.answer_format.end_token_id] = head.weight[free.token_ids[0]] * 2
    ended = generate(backbone, [prompt, prompt], max_new_tokens=8)
    assert [answer.finish_reason for answer in ended] == ["stop", "stop"]
    assert ended[0].token_ids == ()
    assert ended[0].text == ""
    assert ended[0].num_prompt_tokens == free.num_prompt_tokens


def test_sampling_follows_its_seed_only(backbone: Backbone, prompts: list[PromptText]) -> None:
    def sample(seed: int) -> list[tuple[int, ...]]:
        sampling = Sampling(temperature=1.0, seed=seed)
        return [a.token_ids for a in generate(backbone, prompts, sampling=sampling)]

    state = torch.get_rng_state()
    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sampling", [Sampling(top_k=1), Sampling(top_p=1e-6)])
def test_one_kept_token_is_the_greedy_one(
    sampling: Sampling, backbone: Backbone, prompts: list[PromptText]
) -> None:
    hot = Sampling(temperature=5.0, top_k=sampling.top_k, top_p=sampling.top_p)
    assert generate(backbone, prompts, sampling=hot, max_new_tokens=5) == generate(
        backbone, prompts, max_new_tokens=5
    )


def test_draws_follow_the_distribution(backbone: Backbone) -> None:
    prompt = build_prompt(backbone, "is it red?", EXAMPLES[0].pictures)
    encoded = encode_prompts(backbone, [prompt])
    with torch.no_grad():
        logits = backbone.model(**encoded.inputs).logits[0, -1]
    scale = 30.0
    wanted = (logits * scale).softmax(-1)
    top = int(wanted.argmax())
    draws = generate(
        backbone,
        [prompt] * 400,
        sampling=Sampling(temperature=1 / scale, seed=5),
        max_new_tokens=1,
    )
    hits = sum(draw.token_ids == (top,) for draw in draws) / 400
    assert hits == pytest.approx(wanted[top].item(), abs=0.08)
    assert 0.02 < wanted[top].item() < 0.98


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}]
)
def test_settings_that_are_no_distribution_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="Wanted temperature"):
        Sampling(**wrong)  # type: ignore[arg-type] # the wrong value is the point


def test_steering_inside_a_steered_block_adds_up(
    backbone: Backbone, prompts: list[PromptText], random_shifts: Shifts
) -> None:
    shifts = random_shifts(1)
    with inject(backbone, shifts):
        found = generate(backbone, prompts, shifts=shifts, max_new_tokens=4)
    assert found == generate(backbone, prompts, shifts=shifts * 2, max_new_tokens=4)
