"""What a worker counts: requests from their arrival to their end, tokens, vectors on the device."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from app.core.errors import VLibraryError
from app.worker.engine.sequence import Sequence

Stage = Literal["preparing", "waiting", "running"]

FIRST_TOKEN_BUCKETS: Final = (
    *(0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
TOKEN_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0),
)
REQUEST_BUCKETS: Final = (
    *(0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0),
    *(10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
)
LOAD_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(kw_only=True, eq=False)
class RequestTracker:
    """One request on its way through the worker.

    Attributes:
        sequences: Those made for it, the answer's own first; filled in as they are made.
    """

    vectors: frozenset[str]
    arrived: float = field(default_factory=monotonic)
    sequences: list[Sequence] = field(default_factory=list)

    @property
    def stage(self) -> Stage:
        """How far it is."""
        if not self.sequences:
            return "preparing"
        return "running" if any(one.prefill_at > 0 for one in self.sequences) else "waiting"


class WorkerMetrics:
    """A worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tracked: set[RequestTracker] = set()
        ProcessCollector(registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._first_token = histogram(
            "vlibrary_time_to_first_token_seconds",
            "From a request's arrival to its first token",
            buckets=FIRST_TOKEN_BUCKETS,
        )
        self._inter_token = histogram(
            "vlibrary_inter_token_latency_seconds",
            "Between two tokens of one answer",
            buckets=TOKEN_BUCKETS,
        )
        self._end_to_end = histogram(
            "vlibrary_e2e_request_latency_seconds",
            "From a request's arrival to its answer",
            buckets=REQUEST_BUCKETS,
        )
        self.vector_load_seconds = histogram(
            "vlibrary_vector_cache_load_seconds",
            "From the fetch of a vector to its slot on the device",
            buckets=LOAD_BUCKETS,
        )
        counter = partial(Counter, registry=self.registry)
        self._prompt_tokens = counter(
            "vlibrary_prompt_tokens", "Prompt tokens of answered requests"
        )
        self._generation_tokens = counter(
            "vlibrary_generation_tokens", "Tokens of finished answers"
        )
        self._success = counter(
            "vlibrary_request_success", "Requests that were answered", ["finished_reason"]
        )
        self._cancelled = counter(
            "vlibrary_cancelled", "Requests whose client left, by how far they were", ["stage"]
        )
        self._failed = counter(
            "vlibrary_failed", "Requests that ended with an error, by its code", ["code"]
        )
        self.vector_hits = counter(
            "vlibrary_vector_cache_hits", "Vectors found on the device by a request"
        )
        self.vector_evictions = counter(
            "vlibrary_vector_cache_evictions", "Vectors that gave their slot to another"
        )
        self.vector_loads = counter("vlibrary_vector_cache_loads", "Vectors brought to the device")
        Gauge(
            "vlibrary_distinct_vectors_in_batch",
            "Different vectors that steer the rows that run now",
            registry=self.registry,
        ).set_function(self._num_distinct_vectors)

    @contextmanager
    def track(self, vectors: Iterable[str]) -> Iterator[RequestTracker]:
        """Follows a request for the block, and counts how it ended.

        To be used on one event loop; sequences may be added from the device thread.
        """
        tracker = RequestTracker(vectors=frozenset(vectors))
        self._tracked.add(tracker)
        try:
            yield tracker
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled.labels(tracker.stage).inc()
            raise
        except Exception as error:
            code = error.code if isinstance(error, VLibraryError) else VLibraryError.code
            self._failed.labels(code).inc()
            raise
        else:
            self._observe(tracker)
        finally:
            self._tracked.discard(tracker)

    def _observe(self, tracker: RequestTracker) -> None:
        self._end_to_end.observe(monotonic() - tracker.arrived)
        for sequence in tracker.sequences:
            self._prompt_tokens.inc(sequence.num_prompt_tokens)
            self._generation_tokens.inc(len(sequence.token_ids))
            # Every pass gives a token; the one that ends a turn is not among the answer's.
            if (num_gaps := sequence.num_forwards - 1) > 0:
                seconds = sequence.last_token_at - sequence.first_token_at
                self._inter_token.observe(seconds / num_gaps)
        for answer in tracker.sequences[:1]:
            self._first_token.observe(max(0.0, answer.first_token_at - tracker.arrived))
            self._success.labels(answer.finish_reason).inc()

    def _num_distinct_vectors(self) -> float:
        running = (one for one in self._tracked if one.stage == "running")
        return len(frozenset().union(*(one.vectors for one in running)))
