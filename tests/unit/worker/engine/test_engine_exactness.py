"""Rows that join, leave and are cancelled at any time get the tokens that they would get alone."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.worker.engine.batching.cache import SPARE_FACTOR, STEP_POSITIONS
from app.worker.engine.batching.continuous import ContinuousBatching
from app.worker.engine.engine import Engine
from app.worker.engine.families import IN_FLIGHT, runs_in_flight
from app.worker.engine.sequence import Sequence
from tests.fakes.models.alone import RequestSpec, answer_alone, bare_backbone
from tests.fakes.models.traffic import COMBINATIONS, Arrival, arrivals, check_arrivals, run_arrivals

EXAMPLES = 4
# Written out, so that a family cannot drop out of the list unnoticed.
REQUIRED = {
    "aya_vision", "cohere2_vision", "gemma3", "glm4v", "idefics2", "idefics3", "internvl", "llava",
    "llava_next", "llava_onevision", "mistral3", "qwen2_5_vl", "qwen2_vl", "qwen3_vl",
    "qwen3_vl_moe", "smolvlm",
}  # fmt: skip


def test_every_family_that_must_runs_in_flight() -> None:
    assert REQUIRED <= IN_FLIGHT
    for family in REQUIRED:
        assert runs_in_flight(bare_backbone(family))


@pytest.mark.parametrize("family", ["idefics", "mllama", "paligemma", "paligemma2"])
def test_families_that_need_the_stock_loop_run_in_batches(family: str) -> None:
    assert not runs_in_flight(bare_backbone(family))


@pytest.mark.parametrize(("family", "attention"), COMBINATIONS)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(plan=st.lists(arrivals(), min_size=2, max_size=7))
def test_every_token_is_that_of_the_request_alone(
    family: str, attention: str, plan: list[Arrival]
) -> None:
    check_arrivals(family, attention, plan, max_rows=4)


def test_attention_that_takes_no_masks_runs_in_batches() -> None:
    backbone = bare_backbone("llava", "eager")
    config = backbone.model.config.get_text_config()
    assert runs_in_flight(backbone)
    config._attn_implementation = "flash_attention_2"
    try:
        assert not runs_in_flight(backbone)
    finally:
        config._attn_implementation = "eager"


def _room(engine: Engine) -> int:
    runner = engine._runner
    assert isinstance(runner, ContinuousBatching)
    return runner._cache.room


def test_rows_outgrow_their_buffers_and_keep_what_they_hold() -> None:
    family = "idefics3"
    request_specs = [
        RequestSpec(seed=seed, length=length, max_new_tokens=tokens, vector=seed)
        for seed, length, tokens in ((1, 200, 20), (2, 30, 3), (3, 9, 60))
    ]
    backbone = bare_backbone(family)
    engine = Engine(backbone, max_rows=3)
    # Decoding passes the room that there is here, and a prompt does there.
    long = RequestSpec(seed=4, length=246, max_new_tokens=30, vector=5)
    request_specs.append(RequestSpec(seed=6, length=1100, max_new_tokens=4, vector=1))
    plan = [Arrival(spec=spec, joins=place) for place, spec in enumerate([*request_specs, long])]
    stayed, _ = run_arrivals(engine, plan, family=family)
    assert _room(engine) <= SPARE_FACTOR * STEP_POSITIONS < request_specs[-1].length
    # Once more with the room that long rows needed given back.
    again, _ = run_arrivals(engine, plan[1:3], family=family)
    engine.close()
    assert len(stayed) == len(plan)
    stayed += again
    for arrival, sequence in stayed:
        assert sequence.error is None
        assert tuple(sequence.token_ids) == answer_alone(family, None, arrival.spec)


def test_tokens_differ_between_vectors_so_that_the_comparison_means_something() -> None:
    answers = {
        answer_alone("llava", "sdpa", RequestSpec(seed=1, vector=vector, strength=strength))
        for vector, strength in ((0, 1.0), (1, 1.0), (1, -2.0), (2, 1.0))
    }
    assert len(answers) == 4


def test_a_row_that_waits_for_room_is_served_in_its_turn() -> None:
    plan = [Arrival(spec=RequestSpec(seed=seed, max_new_tokens=9), joins=0) for seed in range(6)]
    engine = Engine(bare_backbone("llava"), max_rows=2)
    order: list[Sequence] = [
        sequence for _, sequence in run_arrivals(engine, plan, family="llava")[0]
    ]
    engine.close()
    assert [sequence.id for sequence in order] == [str(place) for place in range(6)]
