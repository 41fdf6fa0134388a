"""What the api counts: requests by route, retrievals, rejections; and the layer that counts."""

import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.admission import Admission
from app.core.telemetry.metrics import CallbackMetric
from app.library.search.retrieval import RetrievalResult

METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
NO_ROUTE: Final = "-"
NO_ANSWER: Final = "-"
SECONDS_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    *(10.0, 30.0, 60.0, 120.0),
)


class Metrics:
    """The api's metrics, in a registry of their own."""

    def __init__(self) -> None:
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

    def note_retrieval(self, result: RetrievalResult) -> None:
        """Count a search by what came out of it."""
        self._retrievals.labels(result.reason or "found").inc()

    def mirror_places(self, places: Mapping[str, Admission]) -> None:
        """Add what is in flight, and what was turned away, as the admissions count it."""
        self.registry.register(
            CallbackMetric(
                kind="gauge",
                name="vlibrary_admission_in_flight",
                documentation="Places that are taken, by kind",
                label="kind",
                read=lambda: {kind: one.in_flight for kind, one in places.items()},
            )
        )
        self.registry.register(
            CallbackMetric(
                kind="counter",
                name="vlibrary_admission_rejections",
                documentation="Requests turned away before their body was read, by reason",
                label="reason",
                read=lambda: _rejections(places.values()),
            )
        )


def _rejections(admissions: Iterable[Admission]) -> Mapping[str, float]:
    total: Tally[str] = Tally()
    for admission in admissions:
        total.update(admission.rejections())
    return total


class MeteredRequests:
    """Counts every request by the template of its route."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = NO_ANSWER

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        start = time.perf_counter()
        with self._metrics.requests_in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_noting_status)
            finally:
                # Only now is it known which route it was.
                route = str(getattr(scope.get("route"), "path_format", NO_ROUTE))
                method = scope["method"] if scope["method"] in METHODS else "OTHER"
                self._metrics.requests.labels(route, method, status).inc()
                self._metrics.request_seconds.labels(route).observe(time.perf_counter() - start)
