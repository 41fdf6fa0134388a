"""Metrics as Prometheus reads them: counts that are read when somebody asks.

Registries are made in the composition roots; the global registry of `prometheus_client` is never
used.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

# The times at which counting began would double every counter.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client types not all


@dataclass(frozen=True, kw_only=True, eq=False)
class CallbackCounter(Collector):
    """A count that some other part keeps anyway; it is read whenever metrics are asked for.

    Gauges have `set_function` for that. The name is without `_total`; keys of what is read are
    values of the label, or the empty string where there is none.
    """

    name: str
    documentation: str
    label: str = ""
    read: Callable[[], Mapping[str, float]]

    def collect(self) -> Iterator[Metric]:
        """The family with its values of this moment."""
        labels = [self.label] if self.label else []
        family = CounterMetricFamily(self.name, self.documentation, labels=labels)
        for key, value in self.read().items():
            family.add_metric([key] if self.label else [], value)
        yield family
