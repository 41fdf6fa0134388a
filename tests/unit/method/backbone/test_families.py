"""Families' real processors: prompts, summaries and answers, whatever was asked before."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.core.pictures import Picture
from app.core.pixels import decode
from app.method.backbone import pictures as module
from app.method.backbone.chat import image_token
from app.method.backbone.examples import Episode, Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone, backbone_from_parts
from app.method.backbone.prompts import PromptText, build_prompt, encode_prompts, process
from app.method.steps import finish
from app.method.training.answers import answer_episodes
from tests.fakes.checkpoints.families import CHECKPOINTS
from tests.fakes.checkpoints.parts import random_model
from tests.fakes.files.pictures import on_its_side

TOLERANCE = 1e-4
# PaliGemma's processor makes arrays of tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


@pytest.fixture(scope="module", params=list(CHECKPOINTS))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.set_num_threads(1)
    parts = CHECKPOINTS[request.param]()
    return backbone_from_parts(random_model(parts), parts.processor, name=request.param)


def picture(seed: int, size: tuple[int, int] = (56, 56)) -> Picture:
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Picture.of(Image.fromarray(blocks).resize(size))


def prompts_of(backbone: Backbone) -> list[PromptText]:
    shown = [
        Example(image=picture(seed), question="Is it red?", answers=("no",), image_id="", id="")
        for seed in range(3)
    ]
    square, wide = picture(5), picture(6, (150, 90))
    return [
        build_prompt(backbone, "What is it?", square),
        build_prompt(backbone, "How many?", wide),
        build_prompt(backbone, "Are they equal?", [square, wide]),
        build_prompt(backbone, "And this?", wide, demonstrations=shown),
    ]


def same(backbone: Backbone, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
        if key in wanted:
            assert torch.equal(found[key], wanted[key]), key
    with torch.no_grad():
        logits = [backbone.model(**inputs).logits[:, -1] for inputs in (found, wanted)]
    torch.testing.assert_close(logits[0], logits[1], atol=TOLERANCE, rtol=0)


def test_prompts_are_the_processors_whichever_comes_first(backbone: Backbone) -> None:
    prompts = prompts_of(backbone)
    wanted = [encode_prompts(backbone, [prompt]).inputs for prompt in prompts]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0)):
        cache = FeatureCache(backbone)
        for place in order:
            same(backbone, cache.encode([prompts[place]]).inputs, wanted[place])


def test_counted_tokens_are_those_of_the_prompt(backbone: Backbone) -> None:
    prompts = prompts_of(backbone)
    cache = FeatureCache(backbone)
    for prompt in prompts:
        wanted = encode_prompts(backbone, [prompt]).num_prompt_tokens
        (found,) = cache.count_tokens([prompt])
        assert abs(found - wanted[0]) <= (0 if cache.uses_cached_features([prompt]) else 2)


def test_a_picture_that_stands_otherwise_than_its_header_tells_changes_no_other(
    backbone: Backbone,
) -> None:
    plain, hidden = picture(6, (150, 90)), picture(9, (150, 90))
    turned = Picture.of(on_its_side(decode(hidden.data), "PNG", "behind"))
    assert turned.size == plain.size
    prompts = [build_prompt(backbone, "What is it?", one) for one in (turned, plain)]
    cache = FeatureCache(backbone)
    cache.count_tokens(prompts)
    for prompt in prompts:
        wanted = encode_prompts(backbone, [prompt]).inputs
        same(backbone, cache.encode([prompt]).inputs, wanted)


def test_summaries_do_not_depend_on_what_was_asked(backbone: Backbone) -> None:
    pictures = [picture(7), picture(8, (90, 150))]
    wanted = FeatureCache(backbone).summaries(pictures)
    cache = FeatureCache(backbone)
    for prompt in prompts_of(backbone):
        cache.encode([prompt])
    torch.testing.assert_close(cache.summaries(pictures), wanted, atol=1e-5, rtol=0)


def test_how_an_item_is_answered_does_not_depend_on_the_pictures_of_others(
    backbone: Backbone,
) -> None:
    square, wide = picture(5), picture(6, (150, 90))
    shown = [(square,), (square, wide), (wide,)]
    if not backbone.name.startswith("paligemma"):
        # Its processor refuses prompts without a picture.
        shown.append(())
    episodes = [
        Episode(
            query=Example(
                image=pictures[0] if pictures else None,
                others=pictures[1:],
                question="What is it?",
                answers=("a red one",),
                image_id="",
                id="",
            )
        )
        for pictures in shown
    ]

    def losses(some: list[Episode]) -> list[float]:
        steps = answer_episodes(FeatureCache(backbone), some, token_budget=4096)
        return [one.loss for one in finish(steps)]

    alone = [loss for episode in episodes for loss in losses([episode])]
    assert losses(episodes) == pytest.approx(alone, abs=TOLERANCE)


def test_no_token_of_an_answer_is_seen_before_it_is_said(backbone: Backbone) -> None:
    prompt = prompts_of(backbone)[1]
    cache = FeatureCache(backbone)
    firsts = []
    for answer in ("red", "what colour is this"):
        batch = cache.encode([prompt], answers=[answer])
        with torch.no_grad():
            logits = backbone.model(**batch.inputs).logits
        firsts.append(logits[batch.predicts_answer][0])
    with torch.no_grad():
        asked = backbone.model(**cache.encode([prompt]).inputs).logits[0, -1]
    for first in firsts:
        torch.testing.assert_close(first, asked, atol=TOLERANCE, rtol=0)


def test_passes_are_bounded_by_what_the_tower_sees(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(seed, (150, 90)) for seed in range(20, 25)]
    found = process(
        backbone,
        [PromptText(text=image_token(backbone.processor), images=(pictures[0],))],
        padding_side="right",
        add_special_tokens=False,
    )["pixel_values"]
    passes = FeatureCache(backbone).passes
    one = passes.num_values(pictures[0].size)
    # Pixtral's processor rounds sizes to patches of its own.
    assert sum(part.numel() for part in found) == pytest.approx(one, rel=0.2)
    monkeypatch.setattr(module, "PASS_VALUES", 2 * one)
    assert [len(batch) for batch in passes.plan(pictures)] == [2, 2, 1]
    assert passes.leading(pictures) == 2
    monkeypatch.setattr(module, "PASS_VALUES", one // 2)
    assert [len(batch) for batch in passes.plan(pictures)] == [1] * 5
    assert passes.leading(pictures) == 1
    monkeypatch.undo()
    assert passes.leading(pictures) == 5
    assert passes.leading([]) == 0
