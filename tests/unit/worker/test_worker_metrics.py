"""What a worker counts of requests, and what it shows of its parts."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch

from app.core.errors import BusyError
from app.core.metrics import expose
from app.worker.engine.sampling import Sampling
from app.worker.engine.sequence import Sequence
from app.worker.metrics import Metrics, Passage, inter_token_seconds
from tests.fakes.exposition import parse_metrics


def _sequence(**changes: object) -> Sequence:
    sequence = Sequence(
        id="one",
        inputs={"input_ids": torch.ones((1, 7), dtype=torch.long)},
        sampling=Sampling(max_new_tokens=5),
    )
    for name, value in changes.items():
        setattr(sequence, name, value)
    return sequence


def _shown(metrics: Metrics) -> dict[str, float]:
    return parse_metrics(expose(metrics.registry.collect()).decode())


def test_an_answer_is_counted_with_its_tokens_and_times() -> None:
    metrics = Metrics()
    with metrics.passage(["a"]) as passage:
        came = passage.arrived
        times = {"began": came + 1.0, "first": came + 2.0, "ended": came + 5.0}
        answer = _sequence(token_ids=[1, 2, 3, 4], finish_reason="stop", **times)
        plain = _sequence(token_ids=[1], finish_reason="length", **times)
        passage.sequences += [answer, plain]
    shown = _shown(metrics)
    assert shown["vlibrary_prompt_tokens_total"] == 14
    assert shown["vlibrary_generation_tokens_total"] == 5
    assert shown['vlibrary_request_success_total{finished_reason="stop"}'] == 1
    assert shown["vlibrary_time_to_first_token_seconds_sum"] == pytest.approx(2.0)
    # The answer of one token has no time between two tokens.
    assert shown["vlibrary_inter_token_latency_seconds_count"] == 1
    assert shown["vlibrary_inter_token_latency_seconds_sum"] == pytest.approx(1.0)
    assert shown["vlibrary_e2e_request_latency_seconds_count"] == 1


def test_an_answer_without_tokens_has_no_time_between_them() -> None:
    assert list(inter_token_seconds(_sequence(first=1.0, ended=9.0))) == []


@pytest.mark.parametrize(
    ("fill", "stage"),
    [
        (lambda _: None, "preparing"),
        (lambda passage: passage.sequences.append(_sequence()), "waiting"),
        (lambda passage: passage.sequences.append(_sequence(began=1.0)), "running"),
    ],
)
@pytest.mark.parametrize("leave", [asyncio.CancelledError, GeneratorExit])
def test_a_client_that_leaves_is_counted_where_it_was(
    fill: Callable[[Passage], None], stage: str, leave: type[BaseException]
) -> None:
    metrics = Metrics()
    with suppress(leave), metrics.passage([]) as passage:
        fill(passage)
        raise leave
    shown = _shown(metrics)
    assert shown[f'vlibrary_cancelled_total{{stage="{stage}"}}'] == 1
    assert shown["vlibrary_e2e_request_latency_seconds_count"] == 0


@pytest.mark.parametrize(("error", "code"), [(BusyError("full"), "busy"), (KeyError("x"), "error")])
def test_failures_are_counted_by_their_code(error: Exception, code: str) -> None:
    metrics = Metrics()
    with suppress(type(error)), metrics.passage([]):
        raise error
    assert _shown(metrics)[f'vlibrary_failed_total{{code="{code}"}}'] == 1


def test_vectors_count_once_and_only_while_they_steer_a_row() -> None:
    metrics = Metrics()
    name = "vlibrary_distinct_vectors_in_batch"
    with metrics.passage(["a", "b"]) as one, metrics.passage(["b", "c"]) as other:
        assert _shown(metrics)[name] == 0
        one.sequences.append(_sequence(began=1.0, finish_reason="stop"))
        assert _shown(metrics)[name] == 2
        other.sequences.append(_sequence(began=1.0, finish_reason="stop"))
        assert _shown(metrics)[name] == 3
    assert _shown(metrics)[name] == 0
