"""Traces by OpenTelemetry, when a collector is set; nothing otherwise.

The SDK is an optional part of the installation; the few calls that spans are made with are not.
"""

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import TracerProvider

from app.core.errors import ConfigurationError
from app.core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as OwnedTracerProvider

UNTRACED_PATHS: Final = frozenset({"/health", "/livez", "/metrics", "/readyz"})


def make_tracer_provider(settings: Settings, *, service: str) -> "OwnedTracerProvider | None":
    """What exports this process's spans, to be shut down by the caller; none when not set.

    Args:
        settings: Name the collector.
        service: Under which name the spans are shown.

    Raises:
        ConfigurationError: A collector is set and the SDK is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        # Only an installation that traces has these packages.
        from app.core.spans import exporting_provider  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "VLIBRARY_OTLP_ENDPOINT is set, but the packages that export traces are missing: "
            "install them with `pip install 'vlibrary[otel]'`, or unset it"
        ) from error
    return exporting_provider(settings.otlp_endpoint, service=service)


def telemetry(provider: TracerProvider | None) -> TelemetryConfig:
    """What FastAPI is told: a span for each request to this provider, or nothing at all.

    Its metrics and logs are off in any case: we have our own, and its logs hold tracebacks.
    """
    config = TelemetryConfig(
        tracing=provider is not None,
        metrics=False,
        logs=False,
        operation_spans=False,
        auto_configure=False,
        exclude=_is_untraced,
    )
    if provider is not None:
        config["tracer_provider"] = provider
    return config


def _is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Whether it is a request that machines repeat every few seconds."""
    return scope.get("path") in UNTRACED_PATHS
