"""A real service to measure, with a vector in its library and request bodies for it.

Knows the service from outside: its command, its settings and its REST interface.
"""

import io
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Final

import httpx
import numpy as np

from app.cli.processes.temporary import passing_folder, running_service, wait_ready
from app.core.errors import UnavailableError
from app.core.settings import Settings
from app.core.vectors.file import encode_vector_file
from app.core.vectors.tensors import VectorTensors
from benchmarks.setting.backbones import folder_of
from tools.pocket.world import render_scene, sample_scene
from vlibrary_client import Client

VECTOR: Final = "bench"
QUESTION: Final = "what shape is this?"
ROUTE: Final = "/steer/generate"
JSON_HEADERS: Final = {"content-type": "application/json"}
POLL_SECONDS: Final = 0.02
MOST_SECONDS_TO_START: Final = 300.0
_DEVIATION: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class Served:
    """A service that is ready.

    Attributes:
        url: Where it is, on this machine.
        backbone: What it says of its backbone.
    """

    url: str
    backbone: Mapping[str, Any]


@contextmanager
def served(*, settings: Mapping[str, str]) -> Iterator[Served]:
    """A service in a passing folder, with an untrained vector called `bench`.

    Args:
        settings: Its settings by name.
    """
    with (
        passing_folder() as folder,
        running_service(folder, settings=settings) as url,
        Client(url) as client,
    ):
        wait_ready(client)
        (backbone,) = (
            httpx.get(f"{url}/backbones", trust_env=False).raise_for_status().json()["items"]
        )
        client.vectors.upload(vector_file(backbone), name=VECTOR)
        yield Served(url=url, backbone=backbone)


def service_conditions(service: Served, *, name: str) -> dict[str, Any]:
    """What has to be known of a service to judge its figures; it inherits our environment.

    Args:
        service: Which one.
        name: Its backbone, as given on the command line.
    """
    settings = Settings()
    return {
        "model": name,
        "architecture": service.backbone["architecture"],
        "device": settings.device,
        "dtype": settings.dtype,
        "attention": settings.attention,
    }


def vector_file(backbone: Mapping[str, Any], *, seed: int = 0) -> bytes:
    """The file of a vector nobody trained; it costs what a trained one costs."""
    rng = np.random.default_rng(seed)
    shape = (int(backbone["num_layers"]), int(backbone["hidden_size"]))
    vectors = [rng.normal(0.0, _DEVIATION, shape).astype(np.float32) for _ in range(2)]
    weights = np.ones(shape[0], dtype=np.float32)
    return encode_vector_file(
        VectorTensors(
            attention_vectors=vectors[0],
            mlp_vectors=vectors[1],
            attention_weights=weights,
            mlp_weights=weights,
        ),
        metadata={"method": "m2iv", "backbone": str(backbone["fingerprint"])},
    )


def encoded_pictures(num_pictures: int) -> list[bytes]:
    """PNG files of pictures of the pocket's world."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(num_pictures):
        file = io.BytesIO()
        render_scene(sample_scene(rng), rng).save(file, format="PNG")
        made.append(file.getvalue())
    return made


def bodies(num_bodies: int, *, max_tokens: int) -> list[bytes]:
    """Bodies of steered requests, each about a picture of its own."""
    return [
        json.dumps(
            {
                "prompt": QUESTION,
                "images": [b64encode(picture).decode()],
                "vector": VECTOR,
                "max_tokens": max_tokens,
            }
        ).encode()
        for picture in encoded_pictures(num_bodies)
    ]


def seconds_until_ready(url: str, *, began: float) -> float:
    """Wall time from `began` until the service says that it is ready.

    Raises:
        UnavailableError: It did not say so in time.
    """
    while perf_counter() - began < MOST_SECONDS_TO_START:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                return perf_counter() - began
        except httpx.TransportError:
            pass
        sleep(POLL_SECONDS)
    raise UnavailableError(f"not ready after {MOST_SECONDS_TO_START:g} s")


def settings_for(backbone: str, parent: Path, **others: object) -> dict[str, str]:
    """The settings of a service with this backbone.

    Args:
        backbone: As given on the command line.
        parent: Where a backbone that has no files gets them.
        others: Further settings.
    """
    return {
        "backbone": folder_of(backbone, parent),
        **{name: str(value) for name, value in others.items()},
    }
