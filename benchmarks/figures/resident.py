"""P15: the memory that a worker stays in, over the bytes of its weights."""

import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx

from app.cli.processes.ports import free_port
from app.core.errors import InvalidInputError
from app.method.backbone.loading import BUNDLED
from benchmarks.harness import bar
from benchmarks.setting.service import (
    JSON_HEADERS,
    ROUTE,
    bodies,
    served,
    service_conditions,
    settings_for,
)
from benchmarks.setting.worker_metrics import WorkerMetrics

HOST: Final = "127.0.0.1"
TIMEOUT_SECONDS: Final = 300.0
RESIDENT: Final = "process_resident_memory_bytes"


def resident_figures(backbone: str, *, num_requests: int, max_tokens: int) -> dict[str, Any]:
    """P15 with the bytes of both sides.

    Args:
        backbone: As given on the command line; its checkpoint is a folder of this machine.
        num_requests: Steered requests about pictures that the worker has answered before.
        max_tokens: Most tokens of an answer.

    Raises:
        InvalidInputError: There is no folder with its checkpoint.
    """
    port, secret = free_port(HOST), secrets.token_urlsafe(32)
    with TemporaryDirectory(prefix="vlibrary-bench-") as parent:
        settings = settings_for(backbone, Path(parent), worker_port=port, worker_secret=secret)
        weights = weight_bytes(Path(BUNDLED.get(backbone, settings["backbone"])))
        with (
            served(settings=settings) as service,
            httpx.Client(base_url=service.url, timeout=TIMEOUT_SECONDS, trust_env=False) as client,
        ):
            made = bodies(num_requests, max_tokens=max_tokens)
            for index in bar(num_requests, "P15"):
                client.post(ROUTE, content=made[index], headers=JSON_HEADERS).raise_for_status()
            with WorkerMetrics(f"http://{HOST}:{port}", secret=secret) as metrics:
                resident = int(metrics.read()[RESIDENT])
            conditions = service_conditions(service, name=backbone)
    return {
        "P15": round(resident / weights, 3),
        "P15_resident_bytes": resident,
        "P15_weight_bytes": weights,
        **conditions,
    }


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights of a checkpoint, as its files hold them.

    Raises:
        InvalidInputError: The folder has none.
    """
    found = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not found:
        raise InvalidInputError(f"Wanted a folder with safetensors files, found {folder}")
    return found
