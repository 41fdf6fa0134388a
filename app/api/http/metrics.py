"""What the api counts: requests by route, retrievals, rejections."""

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from app.api.http.admission import Admission
from app.core.telemetry.metrics import CallbackCounter
from app.library.search.verdicts import RetrievalResult

METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
NO_ANSWER: Final = "-"
SECONDS_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    *(10.0, 30.0, 60.0, 120.0),
)


class ApiMetrics:
    """The api's metrics, in a registry of their own; the `places` by their kind."""

    def __init__(self, places: Mapping[str, Admission]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "vlibrary_http_requests",
            "Requests that were answered, or whose client left",
            labelnames=("route", "method", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "vlibrary_http_request_seconds",
            "From a request's arrival to the end of its response",
            labelnames=("route",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.requests_in_flight = Gauge(
            "vlibrary_http_requests_in_flight",
            "Requests whose response has not ended",
            registry=self.registry,
        )
        self._retrievals = Counter(
            "vlibrary_retrievals",
            "Searches for vectors: found, or why there were none",
            labelnames=("outcome",),
            registry=self.registry,
        )
        in_flight = Gauge(
            "vlibrary_admission_in_flight",
            "Places that are taken, by kind",
            labelnames=("kind",),
            registry=self.registry,
        )
        for kind, admission in places.items():
            in_flight.labels(kind).set_function(partial(getattr, admission, "in_flight"))
        self.registry.register(
            CallbackCounter(
                name="vlibrary_admission_rejections",
                documentation="Requests turned away before their body was read, by reason",
                label="reason",
                read=lambda: _rejections(places.values()),
            )
        )

    def note_request(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has ended; a status of 0 is that of a client who left."""
        known = method if method in METHODS else "OTHER"
        self.requests.labels(route, known, str(status or NO_ANSWER)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def note_retrieval(self, result: RetrievalResult) -> None:
        """Count a search by what came out of it."""
        self._retrievals.labels(result.reason or "found").inc()


def _rejections(admissions: Iterable[Admission]) -> Mapping[str, float]:
    total: Tally[str] = Tally()
    for admission in admissions:
        total.update(admission.rejections())
    return total
