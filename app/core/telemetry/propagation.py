"""What travels of a trace from one process to the next: the ids of `traceparent`, nothing else."""

from typing import Final

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT: Final = "traceparent"

_STANDARD: Final = TraceContextTextMapPropagator()


class TraceIds(TextMapPropagator):
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
        found = getter.get(carrier, TRACEPARENT) or []
        return _STANDARD.extract({TRACEPARENT: found}, context)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Add the ids of the current span to the carrier, where there is one."""
        written: dict[str, str] = {}
        _STANDARD.inject(written, context)
        if TRACEPARENT in written:
            setter.set(carrier, TRACEPARENT, written[TRACEPARENT])

    @property
    def fields(self) -> set[str]:
        """The names of what is written."""
        return {TRACEPARENT}
