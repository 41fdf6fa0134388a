import asyncio
import gc
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidInputError, VLibraryError
from app.core.telemetry.logs import get_logger
from benchmarks.figures import beside, coldness, crowding
from benchmarks.figures.overhead import parts_of
from benchmarks.harness import (
    interleave,
    key_of,
    median_ratio,
    medians,
    paired_ratios,
    percentile,
    processor_name,
    report,
    run,
    seconds_of,
    show,
    spread,
)
from tests.fakes.servers.live_server import serving

numbers = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1, max_size=50)


@given(numbers, st.floats(min_value=0.01, max_value=1.0))
def test_a_percentile_is_the_least_value_that_bounds_its_share(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_the_99th_percentile_of_a_hundred_leaves_out_one() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7.0], 0.01) == 7.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_what_has_no_percentile_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(InvalidInputError):
        percentile(values, share)


@given(numbers, st.floats(min_value=0.1, max_value=10), st.randoms(use_true_random=False))
def test_what_slows_a_whole_round_does_not_change_the_ratio(
    values: list[float], factor: float, chance: random.Random
) -> None:
    slowed = [value * chance.uniform(1, 100) for value in values]
    assert median_ratio([value * factor for value in slowed], slowed) == pytest.approx(factor)


def test_rounds_are_compared_in_pairs() -> None:
    assert paired_ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert median_ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0]) == 3.0
    for one, other in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(InvalidInputError):
            paired_ratios(one, other)


def test_quartiles_and_medians_are_those_of_the_values() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0]) == (1.0, 3.0)
    assert medians({"a": [0.001, 0.003, 0.1]}) == {"a": 3.0}


def test_rounds_visit_every_arm_in_turn_and_in_both_orders() -> None:
    visits: list[str] = []

    def visit(name: str) -> float:
        visits.append(name)
        return float(len(visits))

    found = interleave({"a": lambda: visit("a"), "b": lambda: visit("b")}, rounds=range(3))
    assert "".join(visits) == "ab" + "ab" + "ba" + "ab"
    assert found == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}


def test_no_garbage_is_collected_while_the_clock_runs() -> None:
    seen: list[bool] = []
    assert seconds_of(lambda: seen.append(gc.isenabled())) >= 0
    assert seen == [False]
    assert gc.isenabled()


def test_what_is_logged_is_no_part_of_the_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        get_logger(__name__).info("is ready")
        show({"P1": 1}, as_json=True)

    monkeypatch.setattr("sys.argv", ["benchmark"])
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with pytest.raises(SystemExit):
            run(command)
    finally:
        root.handlers = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert json.loads(capsys.readouterr().out) == {"P1": 1}


def test_other_backbones_get_an_object_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    report(
        "some",
        lambda name: {"P1": name},
        backbones=["pocket", "random-30m", "org/some.model"],
        as_json=True,
        rows=3,
    )
    found = json.loads(capsys.readouterr().out)
    shown = ("P1", "random_30m", "some_model", "rows", "script")
    assert {name: found[name] for name in shown} == {
        "P1": "pocket",
        "random_30m": {"P1": "random-30m"},
        "some_model": {"P1": "org/some.model"},
        "rows": 3,
        "script": "python -m benchmarks.some",
    }
    assert key_of("/models/my-model/") == "my_model"


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Fast One 9\nmodel name\t: Fast One 9\n")
    assert processor_name(info) == "Fast One 9"
    assert processor_name(tmp_path / "missing")


def test_overhead_is_what_the_engine_did_not_do() -> None:
    timings = {"queue_ms": 1.0, "prefill_ms": 4.0, "decode_ms": 5.0, "total_ms": 11.0}
    found = parts_of(timings, milliseconds=14.0)
    assert found["overhead"] == 5.0
    assert found["outside of the worker"] == 3.0


def figures(*, waits: list[float], refusals: int = 0, hints: int = 0) -> crowding.PhaseFigures:
    return crowding.PhaseFigures(
        first_token_seconds=waits,
        answer_seconds=waits,
        refusal_seconds=[0.01] * refusals,
        num_hints=hints,
        asking_seconds=1.0,
        phase_seconds=2.0,
    )


def test_overload_compares_who_is_admitted_and_counts_who_is_refused() -> None:
    calm = [figures(waits=[0.1, 0.2])] * 2
    crowded = [figures(waits=[0.1, 0.3], refusals=18, hints=9)] * 2
    found = crowding.figures_of(calm, crowded)
    assert found["P10"] == 1.5
    assert found["P10_reject_p99_ms"] == 10.0
    assert found["P10_rejects_with_retry_after"] == 0.5
    assert found["offered_over_capacity"] == 20.0
    assert found["rejects"] == 36


def test_without_a_refusal_there_was_no_overload() -> None:
    with pytest.raises(VLibraryError, match="nobody was refused"):
        crowding.figures_of([figures(waits=[0.1])], [figures(waits=[0.1])])


def test_a_cold_vector_costs_what_it_adds_in_steps() -> None:
    found = coldness.figures_of(
        {
            "cold": [coldness.Phase(first_token_ms=[9.0, 10.0, 99.0], gaps_ms=[2.0, 6.0])],
            "warm": [coldness.Phase(first_token_ms=[4.0, 4.0], gaps_ms=[2.0, 4.0])],
            "alone": [coldness.Phase(gaps_ms=[2.0, 2.0, 50.0])],
        }
    )
    assert found["P9"] == 3.0
    assert found["P9_others"] == 1.5


@pytest.fixture(scope="module")
def full_service() -> Iterator[str]:
    """Answers every third request, refuses every other and tells half of those when to return."""
    app = FastAPI()
    asked = 0

    @app.post("/steer/generate")
    async def generate() -> JSONResponse:
        nonlocal asked
        asked += 1
        if asked % 3 == 0:
            await asyncio.sleep(0.02)
            return JSONResponse({"timings": {"decode_ms": 15.0}})
        return JSONResponse({}, 429, headers={"retry-after": "1"} if asked % 3 == 1 else {})

    @app.post("/broken/steer/generate")
    async def broken() -> JSONResponse:
        return JSONResponse({}, 500)

    with serving(app) as url:
        yield url


def test_clients_take_down_answers_refusals_and_hints(full_service: str) -> None:
    found = asyncio.run(
        crowding.crowd(full_service, [b"{}"], num_clients=3, seconds=0.3, pause_seconds=0.01)
    )
    assert found.answer_seconds
    assert min(found.answer_seconds) >= 0.02
    assert found.first_token_seconds[0] == pytest.approx(found.answer_seconds[0] - 0.015)
    # One or two more than half when the last ones were cut off.
    assert abs(found.num_hints - len(found.refusal_seconds) / 2) <= 2
    assert 0.3 <= found.phase_seconds < 30


def test_clients_do_not_take_an_error_for_a_refusal(full_service: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(
            crowding.crowd(
                f"{full_service}/broken", [b"{}"], num_clients=1, seconds=1, pause_seconds=0
            )
        )
    assert "found 500" in str(caught.value.exceptions[0])


def test_a_response_that_is_an_answer_needs_its_timings() -> None:
    found = crowding.PhaseFigures(asking_seconds=1.0)
    assert found.note(httpx.Response(200, json={"timings": {"decode_ms": 500}}), seconds=2.0)
    assert found.first_token_seconds == [1.5]
    assert not found.note(httpx.Response(429, headers={"retry-after": "2"}), seconds=0.1)
    assert (found.refusal_seconds, found.num_hints) == ([0.1], 1)


def test_the_wait_beside_a_training_is_told_in_its_passes() -> None:
    one = beside.Round(alone_ms=[10.0] * 20, beside_ms=[10.0] * 18 + [60.0] * 2, pass_ms=25.0)
    other = beside.Round(alone_ms=[10.0] * 20, beside_ms=[20.0] * 20, pass_ms=10.0)
    found = beside.figures_of([one, other, other])
    assert (found["P14"], found["P14_rounds"]) == (1.0, [2.0, 1.0, 1.0])
    assert found["P14_pass_mean_ms"] == 10.0
