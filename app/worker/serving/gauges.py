"""The metrics of a worker that its parts count anyway, read when they are asked for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from app.core.telemetry.metrics import CallbackCounter
from app.worker.device import DeviceThread
from app.worker.serving.service import Serving
from app.worker.serving.vector_cache import VectorCache


def register_worker_metrics(
    registry: CollectorRegistry,
    *,
    device: DeviceThread,
    vector_cache: VectorCache,
    serving: Serving,
) -> None:
    """Adds what these parts know at any time to the registry."""
    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "vlibrary_num_requests_running": ("Sequences that hold a row", lambda: device.num_running),
        "vlibrary_num_requests_waiting": (
            "Requests that are prepared or wait for a row",
            lambda: max(0, serving.num_requests - device.num_running),
        ),
        "vlibrary_vector_cache_slots": (
            "Vectors that the device has room for",
            lambda: vector_cache.num_slots,
        ),
        "vlibrary_vector_cache_resident": (
            "Vectors on the device",
            lambda: vector_cache.num_resident,
        ),
        "vlibrary_vector_cache_bytes": (
            "Device memory of all slots, taken at the start",
            lambda: vector_cache.num_bytes,
        ),
    }
    for name, (documentation, read) in gauges.items():
        Gauge(name, documentation, registry=registry).set_function(read)
    registry.register(
        CallbackCounter(
            name="vlibrary_training_passes",
            documentation="Passes of trainings, between which answers get their turns",
            read=lambda: {"": device.num_passes},
        )
    )
    registry.register(
        CallbackCounter(
            name="vlibrary_device_seconds",
            documentation="Device time by use: steps that serve, and training between its turns",
            label="use",
            read=device.seconds_by_use,
        )
    )
