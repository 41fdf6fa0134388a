"""What a worker counts of requests, and what it shows of its parts."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import torch
from prometheus_client import generate_latest

from app.core.errors import BusyError, InvalidInputError, NotFoundError
from app.method.backbone.loading import Backbone
from app.method.steps import BackgroundSteps
from app.rpc.generation import SamplingParams
from app.rpc.messages import GenerateRequest
from app.worker.engine.sequence import Sequence
from app.worker.serving.metrics import RequestTracker, WorkerMetrics
from app.worker.serving.server import create_app
from app.worker.serving.vector_cache import VectorCache
from tests.fakes.answers import answer_of
from tests.fakes.exposition import parse_metrics
from tests.fakes.servers.gated_worker import GatedWorker, gated_worker


def _sequence(**changes: object) -> Sequence:
    sequence = Sequence(
        id="one",
        inputs={"input_ids": torch.ones((1, 7), dtype=torch.long)},
        sampling=SamplingParams(max_tokens=5),
    )
    for name, value in changes.items():
        setattr(sequence, name, value)
    return sequence


def _shown(metrics: WorkerMetrics) -> dict[str, float]:
    return parse_metrics(generate_latest(metrics.registry).decode())


def test_an_answer_is_counted_with_its_tokens_and_times() -> None:
    metrics = WorkerMetrics()
    with metrics.track(["a"]) as tracker:
        came = tracker.arrived
        times = {
            "prefill_at": came + 1.0,
            "first_token_at": came + 2.0,
            "last_token_at": came + 6.0,
        }
        # The fifth token ended the turn.
        answer = _sequence(token_ids=[1, 2, 3, 4], num_forwards=5, finish_reason="stop", **times)
        plain = _sequence(token_ids=[1], num_forwards=1, finish_reason="length", **times)
        tracker.sequences += [answer, plain]
    shown = _shown(metrics)
    assert shown["vlibrary_prompt_tokens_total"] == 14
    assert shown["vlibrary_generation_tokens_total"] == 5
    assert shown['vlibrary_request_success_total{finished_reason="stop"}'] == 1
    assert shown["vlibrary_time_to_first_token_seconds_sum"] == pytest.approx(2.0)
    # The answer of one token has no time between two tokens.
    assert shown["vlibrary_inter_token_latency_seconds_count"] == 1
    assert shown["vlibrary_inter_token_latency_seconds_sum"] == pytest.approx(1.0)
    assert shown["vlibrary_e2e_request_latency_seconds_count"] == 1


@pytest.mark.parametrize(
    ("fill", "stage"),
    [
        (lambda _: None, "preparing"),
        (lambda tracker: tracker.sequences.append(_sequence()), "waiting"),
        (lambda tracker: tracker.sequences.append(_sequence(prefill_at=1.0)), "running"),
    ],
)
@pytest.mark.parametrize("leave", [asyncio.CancelledError, GeneratorExit])
def test_a_client_that_leaves_is_counted_where_it_was(
    fill: Callable[[RequestTracker], None], stage: str, leave: type[BaseException]
) -> None:
    metrics = WorkerMetrics()
    with suppress(leave), metrics.track([]) as tracker:
        fill(tracker)
        raise leave
    shown = _shown(metrics)
    assert shown[f'vlibrary_cancelled_total{{stage="{stage}"}}'] == 1
    assert shown["vlibrary_e2e_request_latency_seconds_count"] == 0


@pytest.mark.parametrize(("error", "code"), [(BusyError("full"), "busy"), (KeyError("x"), "error")])
def test_failures_are_counted_by_their_code(error: Exception, code: str) -> None:
    metrics = WorkerMetrics()
    with suppress(type(error)), metrics.track([]):
        raise error
    assert _shown(metrics)[f'vlibrary_failed_total{{code="{code}"}}'] == 1


def test_vectors_count_once_and_only_while_they_steer_a_row() -> None:
    metrics = WorkerMetrics()
    name = "vlibrary_distinct_vectors_in_batch"
    with metrics.track(["a", "b"]) as one, metrics.track(["b", "c"]) as other:
        assert _shown(metrics)[name] == 0
        one.sequences.append(_sequence(prefill_at=1.0, finish_reason="stop"))
        assert _shown(metrics)[name] == 2
        other.sequences.append(_sequence(prefill_at=1.0, finish_reason="stop"))
        assert _shown(metrics)[name] == 3
    assert _shown(metrics)[name] == 0


@asynccontextmanager
async def _http(worker: GatedWorker) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(worker.serving, health=worker.health, max_body_bytes=100_000)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        yield http


async def _scraped(http: httpx.AsyncClient) -> dict[str, float]:
    response = await http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse_metrics(response.text)


def _request(**changes: object) -> GenerateRequest:
    fields = {"request_id": uuid.uuid4().hex, "prompt": "what?", "max_tokens": 4, **changes}
    return GenerateRequest.model_validate(fields)


@pytest.mark.anyio
async def test_a_worker_shows_all_of_its_metrics(backbone: Backbone) -> None:
    async with gated_worker(backbone) as worker, _http(worker) as http:
        uses = [worker.files.use(0), worker.files.use(1)]
        answers = [await answer_of(worker.serving, _request(vectors=uses[:1])) for _ in range(2)]
        answers.append(await answer_of(worker.serving, _request(vectors=uses, baseline=True)))
        with pytest.raises(InvalidInputError):
            await answer_of(worker.serving, _request(prompt=" "))
        shown = await _scraped(http)
    usages = [answer.usage for answer in answers]
    usages += [answer.baseline.usage for answer in answers if answer.baseline is not None]
    tokens = sum(usage.completion_tokens for usage in usages)
    assert shown["vlibrary_generation_tokens_total"] == tokens
    assert shown["vlibrary_prompt_tokens_total"] == sum(usage.prompt_tokens for usage in usages)
    succeeded = [value for name, value in shown.items() if "_request_success_total" in name]
    assert sum(succeeded) == shown["vlibrary_time_to_first_token_seconds_count"] == 3
    assert shown['vlibrary_failed_total{code="invalid-input"}'] == 1
    cache = {
        name: shown[f"vlibrary_vector_cache_{name}"] for name in ("slots", "resident", "bytes")
    }
    assert cache["slots"] == 4
    assert cache["resident"] == 2
    assert cache["bytes"] == 5 * backbone.num_layers * 2 * backbone.hidden_size * 4
    assert shown["vlibrary_vector_cache_loads_total"] == 2
    assert shown["vlibrary_vector_cache_load_seconds_count"] == 2
    assert shown["vlibrary_vector_cache_hits_total"] == 2
    assert shown["vlibrary_vector_cache_evictions_total"] == 0
    assert shown['vlibrary_device_seconds_total{use="serving"}'] > 0
    assert shown['vlibrary_device_seconds_total{use="training"}'] == 0
    assert shown["process_resident_memory_bytes"] > 0


@pytest.mark.anyio
async def test_requests_are_shown_while_they_run_and_wait(backbone: Backbone) -> None:
    async with gated_worker(backbone, max_rows=1) as worker, _http(worker) as http:
        worker.gate.is_shut = True
        use = worker.files.use(0)
        asking = [
            asyncio.create_task(answer_of(worker.serving, _request(vectors=[use])))
            for _ in range(3)
        ]
        await worker.gate.take(1)
        shown = await _scraped(http)
        assert shown["vlibrary_num_requests_running"] == 1
        assert shown["vlibrary_num_requests_waiting"] == 2
        assert shown["vlibrary_distinct_vectors_in_batch"] == 1
        worker.gate.open()
        await asyncio.gather(*asking)
        shown = await _scraped(http)
    assert shown["vlibrary_num_requests_running"] == shown["vlibrary_num_requests_waiting"] == 0
    assert shown["vlibrary_distinct_vectors_in_batch"] == 0


@pytest.mark.anyio
async def test_an_evicted_vector_is_counted(backbone: Backbone) -> None:
    metrics = WorkerMetrics()
    async with gated_worker(backbone) as worker:
        cache = VectorCache(
            backbone, device=worker.device, fetch=worker.files.fetch, num_slots=1, metrics=metrics
        )
        for digest in worker.files.digests * 2:
            async with cache.hold([digest]):
                pass
        with pytest.raises(NotFoundError):
            async with cache.hold(["0" * 64]):
                pass
    shown = _shown(metrics)
    assert shown["vlibrary_vector_cache_loads_total"] == 4
    assert shown["vlibrary_vector_cache_evictions_total"] == 4
    assert shown["vlibrary_vector_cache_load_seconds_count"] == 4


@pytest.mark.anyio
async def test_training_takes_its_part_of_the_devices_time(backbone: Backbone) -> None:
    def work() -> BackgroundSteps[None]:
        for _ in range(3):
            time.sleep(0.01)
            yield None

    async with gated_worker(backbone) as worker:
        await worker.device.run_background(work())
        assert worker.device.seconds_by_use()["training"] >= 0.03
        assert worker.device.num_passes == 3
