import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from app.core.errors import ConfigurationError
from app.core.settings import Settings
from app.core.telemetry.spans import REDACTED, provider_for
from app.core.telemetry.tracing import telemetry, tracer_provider

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def _settings() -> Settings:
    return Settings(otlp_endpoint="http://127.0.0.1:1/")


def test_nothing_is_traced_unless_a_collector_is_set() -> None:
    assert tracer_provider(Settings(), service="s") is None
    config = telemetry(None)
    assert not any(config[key] for key in ("tracing", "metrics", "logs", "auto_configure"))


def test_a_collector_gets_spans_under_the_services_name() -> None:
    provider = tracer_provider(_settings(), service="vlibrary-api")
    assert isinstance(provider, TracerProvider)
    assert provider.resource.attributes["service.name"] == "vlibrary-api"
    assert telemetry(provider)["tracer_provider"] is provider
    # There is no span to send, so nobody has to be there.
    provider.shutdown()


def test_missing_packages_are_told_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    monkeypatch.delitem(sys.modules, "app.core.telemetry.spans", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[otel\]'"):
        tracer_provider(_settings(), service="s")


@pytest.mark.parametrize("wrong", ["127.0.0.1:4318", "grpc://a:4317", "http://", ""])
def test_a_collector_is_a_url(wrong: str) -> None:
    with pytest.raises(ValidationError):
        Settings(otlp_endpoint=wrong)


def test_what_a_caller_typed_is_not_in_a_span() -> None:
    exporter = InMemorySpanExporter()
    provider = provider_for(SimpleSpanProcessor(exporter), service="s")
    typed: dict[str, str | int] = {
        "url.path": "/a",
        "url.query": "q=b",
        "http.request.method_original": "c",
        "server.address": "d",
        "server.port": 5,
    }
    provider.get_tracer("t").start_span("GET", attributes={**typed, "url.scheme": "http"}).end()
    (span,) = exporter.get_finished_spans()
    assert span.attributes == {**dict.fromkeys(typed, REDACTED), "url.scheme": "http"}
