"""The metrics of a worker that its parts count anyway, read when they are asked for."""

from prometheus_client import CollectorRegistry

from app.core.metrics import Mirror, mirror
from app.worker.device import DeviceThread
from app.worker.serving.service import Serving
from app.worker.serving.vector_cache import VectorBank


def mirror_worker(
    registry: CollectorRegistry, *, device: DeviceThread, bank: VectorBank, serving: Serving
) -> None:
    """Adds what these parts know at any time to the registry."""
    mirror(
        registry,
        "vlibrary_num_requests_running",
        "Sequences that hold a row",
        read=lambda: device.num_running,
    )
    mirror(
        registry,
        "vlibrary_num_requests_waiting",
        "Requests that are prepared or wait for a row",
        read=lambda: max(0, serving.num_requests - device.num_running),
    )
    registry.register(
        Mirror(
            kind="counter",
            name="vlibrary_device_seconds",
            documentation="Device time by use: steps that serve, and training between its turns",
            label="use",
            read=device.seconds_by_use,
        )
    )
    mirror(
        registry,
        "vlibrary_vector_bank_slots",
        "Vectors that the device has room for",
        read=lambda: bank.num_slots,
    )
    mirror(
        registry,
        "vlibrary_vector_bank_resident",
        "Vectors on the device",
        read=lambda: bank.num_resident,
    )
    mirror(
        registry,
        "vlibrary_vector_bank_bytes",
        "Device memory of all slots, taken at the start",
        read=lambda: bank.num_bytes,
    )
