"""What a worker serves with, put together from its settings and taken apart again.

Knows every part of the serving side; where vectors and datasets come from is the caller's affair.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from jaxtyping import Float
from torch import Tensor

from app.core.pictures import PictureLimits
from app.core.settings import Settings
from app.core.threads import on_passing_thread
from app.library.storage import ObjectStore
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.dose import residual_norms
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.engine.weights import PackedWeights
from app.worker.serving.demonstrations import DatasetPools
from app.worker.serving.dose_limit import DoseLimit
from app.worker.serving.gauges import register_worker_metrics
from app.worker.serving.metrics import Metrics
from app.worker.serving.preprocessing import Reader
from app.worker.serving.service import Limits, Serving
from app.worker.serving.vector_cache import Fetch, VectorCache

FEATURE_CACHE_BYTES: Final = 256 * 1024**2
FEATURE_CACHE_SUMMARIES: Final = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class ServingParts:
    """The serving side of a worker, running."""

    engine: Engine
    device: DeviceThread
    vector_cache: VectorCache
    pools: DatasetPools
    serving: Serving


@asynccontextmanager
async def serving_parts(
    backbone: Backbone,
    settings: Settings,
    *,
    fetch: Fetch,
    objects: ObjectStore,
    on_broken: Callable[[], object] | None = None,
) -> AsyncIterator[ServingParts]:
    """The parts, for the block.

    Args:
        backbone: Gets resident hooks, which are taken off at the end.
        settings: Sizes and limits.
        fetch: The stored file of a vector's digest.
        objects: Where datasets lie.
        on_broken: Called from the device thread when the device is lost for good.
    """
    # From here on, only the device thread computes.
    norms, weights, engine = on_passing_thread(lambda: _prepare(backbone, settings))
    device = DeviceThread(engine, training_share=settings.training_share, on_broken=on_broken)
    features = FeatureCache(
        backbone, max_bytes=FEATURE_CACHE_BYTES, max_summaries=FEATURE_CACHE_SUMMARIES
    )
    metrics = Metrics()
    vector_cache = on_passing_thread(
        lambda: VectorCache(
            backbone, device=device, fetch=fetch, num_slots=settings.bank_slots, metrics=metrics
        )
    )
    pools = DatasetPools(backbone, device=device, objects=objects, features=features)
    reader = Reader(
        backbone, device=device, pools=pools, features=features, limits=PictureLimits.of(settings)
    )
    limits = Limits(
        max_requests=settings.max_rows + settings.max_waiting,
        max_new_tokens=settings.max_new_tokens_limit,
        dose=DoseLimit(norms=norms, highest=settings.max_dose),
    )
    serving = Serving(
        backbone,
        device=device,
        vector_cache=vector_cache,
        reader=reader,
        features=features,
        limits=limits,
        metrics=metrics,
    )
    register_worker_metrics(
        metrics.registry, device=device, vector_cache=vector_cache, serving=serving
    )
    device.start()
    try:
        yield ServingParts(
            engine=engine, device=device, vector_cache=vector_cache, pools=pools, serving=serving
        )
    finally:
        reader.close()
        await asyncio.to_thread(device.stop)
        engine.close()
        if weights is not None:
            weights.remove()


def _prepare(
    backbone: Backbone, settings: Settings
) -> tuple[Float[Tensor, " layers"], PackedWeights | None, Engine]:
    """The residual stream's norms, copies of the weights and the engine that uses them."""
    norms = residual_norms(backbone)
    weights = PackedWeights(backbone) if settings.pack_weights else None
    return norms, weights, Engine(backbone, max_rows=settings.max_rows, weights=weights)
