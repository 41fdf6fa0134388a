"""A worker's serving side without a database, and requests for it."""

import io
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import torch
from PIL import Image

from app.core.errors import NotFoundError
from app.core.identifiers import sha256_hex
from app.core.settings import Settings
from app.core.vectors.file import decode_vector_file
from app.library.storage import ObjectStore
from app.method.backbone.loading import Backbone
from app.method.keys.encoder import space_id
from app.method.steering.vectors import InContextVectors
from app.rpc.client import WorkerClient
from app.rpc.messages import GenerateRequest, HealthResponse
from app.worker.assembly import serving_parts
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.serving.demonstrations import DatasetPools
from app.worker.serving.server import create_app
from app.worker.serving.service import Serving
from tests.fakes.vectors import make_vector_file

# Made-up vectors are long beside the stream of a tiny random backbone.
HIGHEST_DOSE = 1000.0
# A token that was taken once is always taken again, so the turn is never ended.
ENDLESS: dict[str, Any] = {"max_tokens": 900, "presence_penalty": -2.0, "stop": ["never"]}
DATASET = {"storage_key": "datasets/colours.parquet"}


class Files:
    """Two vector files in memory."""

    def __init__(self, backbone: Backbone, *, metadata: Mapping[str, str] | None = None) -> None:
        made = [
            make_vector_file(seed, backbone=backbone.description, metadata=metadata)
            for seed in (1, 2)
        ]
        self.contents = {sha256_hex(data): data for data in made}
        self.digests = list(self.contents)

    async def fetch(self, digest: str) -> bytes:
        if digest not in self.contents:
            raise NotFoundError("no such file")
        return self.contents[digest]

    def shift(self, digest: str) -> torch.Tensor:
        tensors, _ = decode_vector_file(self.contents[digest])
        return InContextVectors.from_tensors(tensors).shift()

    def use(self, place: int, strength: float = 1.0) -> dict[str, object]:
        return {
            "sha256": self.digests[place],
            "name": "colours",
            "version": place + 1,
            "strength": strength,
        }


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A serving worker without a database, and the vectors it knows."""

    files: Files
    engine: Engine
    device: DeviceThread
    pools: DatasetPools
    serving: Serving

    def use(self, place: int, strength: float = 1.0) -> dict[str, object]:
        return self.files.use(place, strength)


@asynccontextmanager
async def running_parts(
    backbone: Backbone,
    objects: ObjectStore,
    *,
    max_requests: int = 16,
    vector_cache_slots: int = 4,
    highest_dose: float = HIGHEST_DOSE,
    metadata: Mapping[str, str] | None = None,
    load: Callable[[], Backbone] | None = None,
) -> AsyncIterator[Parts]:
    rows = min(4, max_requests - 1)
    settings = Settings(
        max_rows=rows,
        max_waiting=max_requests - rows,
        max_new_tokens_limit=900,
        vector_cache_slots=vector_cache_slots,
        max_dose=highest_dose,
    )
    files = Files(backbone, metadata=metadata)
    async with serving_parts(
        load or (lambda: backbone), settings, fetch=files.fetch, objects=objects
    ) as made:
        yield Parts(
            files=files,
            engine=made.engine,
            device=made.device,
            pools=made.pools,
            serving=made.serving,
        )


def png(colour: tuple[int, int, int] = (220, 30, 30), *, side: int = 16) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


def request_of(**changes: object) -> GenerateRequest:
    fields = {"request_id": uuid.uuid4().hex, "prompt": "what color?", "max_tokens": 8, **changes}
    return GenerateRequest.model_validate(fields)


def over_http(backbone: Backbone, parts: Parts) -> tuple[WorkerClient, httpx.ASGITransport]:
    def health() -> HealthResponse:
        return HealthResponse(
            status="ready",
            backbone=backbone.description,
            space=space_id(backbone),
            running=parts.device.num_running,
            waiting=0,
            role="both",
        )

    transport = httpx.ASGITransport(
        app=create_app(parts.serving, health=health, max_body_bytes=100_000),
        raise_app_exceptions=False,
    )
    return WorkerClient(["http://worker"], transport=transport), transport
