"""Metrics as Prometheus reads them: counts mirrored when they are asked for, and their text.

Registries are made in the composition roots; the global registry of `prometheus_client` is never
used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


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


class _Families(Collector):
    """Families without the times at which their counting began, which double every counter."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            kept = Metric(family.name, family.documentation, family.type)
            kept.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield kept


def expose(families: Iterable[Metric]) -> bytes:
    """The families in the Prometheus text format."""
    return generate_latest(_Families(families))
