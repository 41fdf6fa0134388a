"""What a worker serves with, put together from its settings and taken apart again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from jaxtyping import Float
from prometheus_client import CollectorRegistry, Gauge
from torch import Tensor

from app.core.pictures import PictureLimits
from app.core.settings import Settings
from app.core.telemetry.metrics import CallbackCounter
from app.library.storage import ObjectStore
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.dose import residual_norms
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.weights import PackedWeights
from app.worker.serving.demonstrations import DatasetPools
from app.worker.serving.metrics import WorkerMetrics
from app.worker.serving.preprocessing import Preprocessor
from app.worker.serving.service import Serving
from app.worker.serving.vector_cache import Fetch, VectorCache

FEATURE_CACHE_BYTES: Final = 256 * 1024**2
FEATURE_CACHE_SUMMARIES: Final = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class ServingParts:
    """The serving side of a worker, running."""

    backbone: Backbone
    engine: Engine
    device: DeviceThread
    pools: DatasetPools
    serving: Serving


@asynccontextmanager
async def serving_parts(
    load: Callable[[], Backbone],
    settings: Settings,
    *,
    fetch: Fetch,
    objects: ObjectStore,
    on_broken: Callable[[], object] | None = None,
) -> AsyncIterator[ServingParts]:
    """The parts, for the block.

    `load` brings the backbone, which gets resident hooks that are taken off at the end. It is
    called on the device thread: no other thread of a worker may compute (decision 0006). `fetch`
    gives the stored file of a vector's digest; `on_broken` is called from the device thread when
    the device is lost for good.

    Raises:
        VLibraryError: What `load` raises.
    """
    device = DeviceThread(training_share=settings.training_share, on_broken=on_broken)
    metrics = WorkerMetrics()
    async with AsyncExitStack() as stack:
        # Its hooks are taken off when the device thread has ended.
        closing = stack.enter_context(ExitStack())
        stack.push_async_callback(asyncio.to_thread, device.stop)
        device.start()
        backbone, norms, engine, features = await device.call(
            lambda: _load(load, settings, closing)
        )
        device.serve(engine)
        vector_cache = await device.call(
            lambda: VectorCache(
                backbone,
                device=device,
                fetch=fetch,
                num_slots=settings.vector_cache_slots,
                metrics=metrics,
            )
        )
        pools = DatasetPools(features, device=device, objects=objects)
        preprocessor = Preprocessor(
            features,
            device=device,
            pools=pools,
            limits=PictureLimits.of(settings),
        )
        stack.callback(preprocessor.close)
        serving = Serving(
            features,
            device=device,
            vector_cache=vector_cache,
            preprocessor=preprocessor,
            max_requests=settings.max_rows + settings.max_waiting,
            max_new_tokens=settings.max_new_tokens_limit,
            norms=norms,
            max_dose=settings.max_dose,
            metrics=metrics,
        )
        _register_gauges(
            metrics.registry, device=device, vector_cache=vector_cache, serving=serving
        )
        yield ServingParts(
            backbone=backbone,
            engine=engine,
            device=device,
            pools=pools,
            serving=serving,
        )


def _load(
    load: Callable[[], Backbone], settings: Settings, closing: ExitStack
) -> tuple[Backbone, Float[Tensor, " layers"], Engine, FeatureCache]:
    backbone = load()
    weights = PackedWeights(backbone) if settings.pack_weights else None
    if weights is not None:
        closing.callback(weights.remove)
    norms = residual_norms(backbone)
    engine = Engine(backbone, max_rows=settings.max_rows, weights=weights)
    closing.callback(engine.close)
    features = FeatureCache(
        backbone, max_bytes=FEATURE_CACHE_BYTES, max_summaries=FEATURE_CACHE_SUMMARIES
    )
    return backbone, norms, engine, features


def _register_gauges(
    registry: CollectorRegistry,
    *,
    device: DeviceThread,
    vector_cache: VectorCache,
    serving: Serving,
) -> None:
    """Adds what these parts count anyway to the registry, read when it is asked for."""

    def gauge(name: str, documentation: str, read: Callable[[], float]) -> None:
        Gauge(f"vlibrary_{name}", documentation, registry=registry).set_function(read)

    gauge("num_requests_running", "Sequences that hold a row", lambda: device.num_running)
    waiting = "Requests that are prepared or wait for a row"
    gauge("num_requests_waiting", waiting, lambda: serving.num_waiting)
    slots = "Vectors that the device has room for"
    gauge("vector_cache_slots", slots, lambda: vector_cache.num_slots)
    gauge("vector_cache_resident", "Vectors on the device", lambda: vector_cache.num_resident)
    size = "Device memory of all slots, taken at the start"
    gauge("vector_cache_bytes", size, lambda: vector_cache.num_bytes)
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
