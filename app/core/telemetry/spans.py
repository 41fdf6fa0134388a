"""The OpenTelemetry SDK as we use it; imported only where traces are exported."""

from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from app.core.version import software_version

TRACES_PATH: Final = "/v1/traces"
REDACTED: Final = "REDACTED"
# Names and search texts stand in paths and queries; the route's template says enough. The server's
# address is what the Host header says it is.
TYPED_BY_CALLERS: Final = (
    *("url.path", "url.query", "http.request.method_original"),
    *("server.address", "server.port"),
)


class Redaction(SpanProcessor):
    """Takes out of a span, as it starts, what a caller may have typed."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Replaces the values in question."""
        del parent_context
        for name in TYPED_BY_CALLERS:
            if name in (span.attributes or {}):
                span.set_attribute(name, REDACTED)


def exporting_provider(endpoint: str, *, service: str) -> TracerProvider:
    """A provider whose spans go to the collector in batches, from a thread of its own."""
    url = endpoint.rstrip("/")
    if not url.endswith(TRACES_PATH):
        url += TRACES_PATH
    return provider_for(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)), service=service)


def provider_for(processor: SpanProcessor, *, service: str) -> TracerProvider:
    """A provider whose spans go to the processor, without what callers typed."""
    resource = Resource.create({"service.name": service, "service.version": software_version()})
    # Whoever made the provider shuts it down.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(Redaction())
    provider.add_span_processor(processor)
    return provider
