"""Traces by OpenTelemetry, when a collector is set; nothing otherwise.

From one process to the next travel the ids of `traceparent`, and nothing else.

The SDK is an optional part of the installation; the few calls that spans are made with are not.
"""

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import CarrierT, Getter, default_getter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.core.errors import ConfigurationError
from app.core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TRACEPARENT: Final = "traceparent"
UNTRACED_PATHS: Final = frozenset({"/health", "/livez", "/metrics", "/readyz"})


class TraceIds(TraceContextTextMapPropagator):
    """Reads and writes `traceparent`.

    Callers may type anything into `tracestate` and `baggage`: neither is read, so that neither
    gets into a span, into a log of what was wrong with it, or to a worker.
    """

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """The context with the caller's span, where there is one."""
        return super().extract({TRACEPARENT: getter.get(carrier, TRACEPARENT) or []}, context)


def tracer_provider(settings: Settings, *, service: str) -> "TracerProvider | None":
    """The provider of the collector that the settings name, where they name one.

    The caller shuts it down, which sends what is left and blocks for a few seconds at most.

    Raises:
        ConfigurationError: A collector is set and the SDK is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        # Only an installation that traces has these packages.
        from app.core.telemetry.spans import exporting_provider  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "VLIBRARY_OTLP_ENDPOINT is set, but the packages that export traces are missing: "
            "in the checkout, `pip install '.[otel]'`, or unset it"
        ) from error
    return exporting_provider(settings.otlp_endpoint, service=service)


def telemetry(provider: trace.TracerProvider | None) -> TelemetryConfig:
    """What FastAPI is told: a span for each request to this provider, or nothing at all.

    Its metrics and logs are off in any case: we have our own, and its logs hold tracebacks.
    With a provider, this process continues traces by `TraceIds` from now on.
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
        # FastAPI reads a caller's headers by the propagator of the process and no other.
        propagate.set_global_textmap(TraceIds())
        config["tracer_provider"] = provider
    return config


def _is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Whether it is a request that machines repeat every few seconds."""
    return scope.get("path") in UNTRACED_PATHS
