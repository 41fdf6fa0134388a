"""What a worker shows of itself, read as Prometheus reads it."""

from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families


class WorkerMetrics:
    """The metrics of one worker, in a `with` block.

    Args:
        url: Where it is.
        secret: What it is shown.
    """

    def __init__(self, url: str, *, secret: str) -> None:
        headers = {"authorization": f"Bearer {secret}"}
        self._http = httpx.Client(base_url=url, headers=headers, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def read(self) -> dict[str, float]:
        """The values now, by their names with labels as they are written."""
        text = self._http.get("/metrics").raise_for_status().text
        return {
            sample.name + _labels(sample.labels): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def _labels(labels: dict[str, str]) -> str:
    shown = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{shown}}}" if shown else ""
