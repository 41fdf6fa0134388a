"""The metrics of a worker that its parts count anyway, read when they are asked for."""

from prometheus_client import CollectorRegistry

from app.core.telemetry.metrics import CallbackMetric, register_callback
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
    register_callback(
        registry,
        "vlibrary_num_requests_running",
        "Sequences that hold a row",
        read=lambda: device.num_running,
    )
    register_callback(
        registry,
        "vlibrary_num_requests_waiting",
        "Requests that are prepared or wait for a row",
        read=lambda: max(0, serving.num_requests - device.num_running),
    )
    registry.register(
        CallbackMetric(
            kind="counter",
            name="vlibrary_device_seconds",
            documentation="Device time by use: steps that serve, and training between its turns",
            label="use",
            read=device.seconds_by_use,
        )
    )
    register_callback(
        registry,
        "vlibrary_training_passes",
        "Passes of trainings, between which answers get their turns",
        kind="counter",
        read=lambda: device.num_passes,
    )
    register_callback(
        registry,
        "vlibrary_vector_bank_slots",
        "Vectors that the device has room for",
        read=lambda: vector_cache.num_slots,
    )
    register_callback(
        registry,
        "vlibrary_vector_bank_resident",
        "Vectors on the device",
        read=lambda: vector_cache.num_resident,
    )
    register_callback(
        registry,
        "vlibrary_vector_bank_bytes",
        "Device memory of all slots, taken at the start",
        read=lambda: vector_cache.num_bytes,
    )
