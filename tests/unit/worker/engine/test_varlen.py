"""Prompts read end to end in one row get what each of them gets alone."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from app.method.backbone.loading import Backbone
from app.worker.engine.batching.continuous import ContinuousBatching
from app.worker.engine.batching.varlen import varlen_prefill
from app.worker.engine.engine import Engine
from app.worker.engine.families import IN_FLIGHT
from app.worker.engine.scheduler import CHEAP_TOKENS
from app.worker.engine.sequence import Sequence
from tests.fakes.models.alone import RequestSpec, answer_alone, bare_backbone, sampled_alone
from tests.fakes.models.family_configs import FAMILIES
from tests.fakes.models.traffic import Arrival, run_arrivals

# Their masks or positions depend on which tokens are an image's.
NEVER_PACKED = {family for family in IN_FLIGHT if FAMILIES[family].token_types}
WINDOW = 6
TEXTS = [
    RequestSpec(seed=seed, length=length, shows_image=False, vector=seed % 3, strength=strength)
    for seed, length, strength in ((1, 5, 1.0), (2, 13, -2.0), (3, 9, 0.5), (4, 6, 1.0))
]


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the number of rows of every packed pass."""
    found: list[int] = []

    def counted(backbone: Backbone, prompts: list[Sequence], **options: Any) -> object:  # noqa: ANN401
        found.append(len(prompts))
        return varlen_prefill(backbone, prompts, **options)

    monkeypatch.setattr("app.worker.engine.batching.continuous.varlen_prefill", counted)
    return found


def _check_answers(family: str, attention: str, request_specs: list[RequestSpec]) -> None:
    """Compares each answer with that of the spec alone."""
    backbone = bare_backbone(family, attention)
    engine = Engine(backbone, max_rows=len(request_specs))
    assert isinstance(engine._runner, ContinuousBatching)
    plan = [Arrival(spec=spec, joins=0) for spec in request_specs]
    stayed, _ = run_arrivals(engine, plan, family=family)
    engine.close()
    for arrival, sequence in stayed:
        assert sequence.error is None
        assert tuple(sequence.token_ids) == answer_alone(family, attention, arrival.spec)
        assert sequence.sites_hit == (backbone.description.num_sites if arrival.spec.vector else 0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", sorted(IN_FLIGHT))
def test_texts_of_different_lengths_are_read_in_one_pass(
    family: str, attention: str, packed: list[int]
) -> None:
    _check_answers(family, attention, TEXTS)
    assert packed == ([] if family in NEVER_PACKED else [len(TEXTS)])


def test_most_families_can_be_packed() -> None:
    assert {
        "gemma3", "glm4v", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe",
    } == NEVER_PACKED  # fmt: skip


@pytest.mark.parametrize("family", ["idefics3", "smolvlm", "llava", "mistral3", "internvl"])
def test_known_images_are_packed_with_texts(family: str, packed: list[int]) -> None:
    known = [
        RequestSpec(seed=seed, length=11 + seed, is_known=True, vector=seed) for seed in (1, 2)
    ]
    _check_answers(family, "sdpa", [known[0], TEXTS[0], known[1], TEXTS[1]])
    assert packed == [4]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_sliding_window_ends_where_it_does_alone(attention: str, packed: list[int]) -> None:
    family = "mistral3"
    bare = bare_backbone(family, attention)
    backbone = replace(bare, model=deepcopy(bare.model))
    backbone.model.config.get_text_config().sliding_window = WINDOW
    rows = [
        Sequence(id=str(spec.seed), inputs=spec.inputs(family), sampling=spec.sampling())
        for spec in (
            RequestSpec(seed=seed, length=length, shows_image=False)
            for seed, length in ((1, 20), (2, 33))
        )
    ]
    engine = Engine(backbone, max_rows=len(rows))
    assert isinstance(engine._runner, ContinuousBatching)
    for row in rows:
        engine.add(row)
    while engine.has_work:
        engine.step()
    engine.close()
    assert packed == [len(rows)]
    for row in rows:
        inputs = dict(row.inputs)
        windowed, whole = (
            sampled_alone(one, inputs, shift=None, sampling=row.sampling)
            for one in (backbone, bare)
        )
        assert row.token_ids == windowed
        # Otherwise the window would make no difference, and nothing were shown.
        assert windowed != whole


def test_prompts_of_one_length_and_long_ones_are_stacked_as_before(packed: list[int]) -> None:
    alike = [RequestSpec(seed=seed, length=9, shows_image=False) for seed in (1, 2)]
    _check_answers("llava", "sdpa", alike)
    assert packed == []
    long = [
        RequestSpec(seed=seed, length=length, shows_image=False, max_new_tokens=2)
        for seed, length in ((1, CHEAP_TOKENS // 2), (2, CHEAP_TOKENS // 2 + 1))
    ]
    _check_answers("llava", "sdpa", long)
    assert packed == []


def test_a_packed_prompt_does_not_see_its_neighbours() -> None:
    """The same prompts in another order leave the same keys and values."""
    kept = []
    for order in (TEXTS, TEXTS[::-1]):
        engine = Engine(bare_backbone("llava"), max_rows=len(order))
        runner = engine._runner
        assert isinstance(runner, ContinuousBatching)
        rows = [
            Sequence(
                id=str(spec.seed),
                inputs=spec.inputs("llava"),
                sampling=spec.sampling(),
                shift=spec.shift(bare_backbone("llava")),
            )
            for spec in order
        ]
        with torch.inference_mode():
            runner.prefill(rows)
        kept.append(
            {
                row.id: runner._cache._layers[-1]._keys[place, : row.num_prompt_tokens].clone()
                for place, row in enumerate(rows)
            }
        )
        engine.close()
    for name, keys in kept[0].items():
        torch.testing.assert_close(keys, kept[1][name])
