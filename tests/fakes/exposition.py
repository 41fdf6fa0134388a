"""Metrics as a Prometheus server would read them."""

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families


def parse_metrics(text: str) -> dict[str, float]:
    """Every sample by its name and labels, such as `name{a="1",b="2"}`.

    No family and no sample may be there twice, and every family needs a type and a help text.
    """
    samples: dict[str, float] = {}
    families: dict[str, int] = defaultdict(int)
    for family in text_string_to_metric_families(text):
        families[family.name] += 1
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in samples, key
            samples[key] = sample.value
    assert set(families.values()) <= {1}
    return samples
