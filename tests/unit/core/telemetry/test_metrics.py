from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.core.telemetry.metrics import CallbackCounter
from tests.fakes.exposition import parse_metrics


def test_a_mirror_shows_the_value_of_the_moment() -> None:
    registry = CollectorRegistry()
    value = 1.0
    registry.register(
        CallbackCounter(name="seen", documentation="How many", read=lambda: {"": value})
    )
    assert parse_metrics(generate_latest(registry).decode()) == {"seen_total": 1.0}
    value = 2.0
    assert parse_metrics(generate_latest(registry).decode()) == {"seen_total": 2.0}


def test_a_mirror_has_a_sample_for_each_value_of_its_label() -> None:
    registry = CollectorRegistry()
    seen = {"one": 1.0, 'odd"\n\\': 2.0}
    registry.register(
        CallbackCounter(name="seen", documentation="S", label="who", read=lambda: seen)
    )
    samples = parse_metrics(generate_latest(registry).decode())
    assert samples == {'seen_total{who="one"}': 1.0, 'seen_total{who="odd"\n\\"}': 2.0}


def test_no_time_of_creation_is_shown() -> None:
    registry = CollectorRegistry()
    Counter("seen", "S", registry=registry).inc()
    Histogram("took", "T", buckets=(1.0,), registry=registry).observe(0.5)
    samples = parse_metrics(generate_latest(registry).decode())
    assert samples["seen_total"] == samples["took_count"] == samples['took_bucket{le="1.0"}'] == 1
    assert not [name for name in samples if "created" in name]
