"""Items of stored datasets put before a query: pools kept in memory, a bounded number of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from jaxtyping import Float32

from app.core.errors import InvalidInputError
from app.core.pictures import Picture
from app.library.storage import ObjectStore
from app.method.backbone.embedding import embed
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.pictures import shown_digest
from app.method.backbone.randomness import generator_for
from app.method.evaluation.conditions import balanced_context, nearest_context
from app.method.evaluation.tasks.loading import load_examples
from app.rpc.messages import DemonstrationsUse
from app.worker.device import DeviceThread

MAX_POOLS: Final = 4
MAX_ITEMS: Final = 10_000
CHUNK_ITEMS: Final = 64

Rows = Float32[np.ndarray, "items width"]


@dataclass(kw_only=True, eq=False)
class Pool:
    """One dataset's items, with what choosing among them needs.

    Attributes:
        pictures: What each item's picture shows, as a digest; empty where there is none.
        rows: Each item's embedding, once somebody asked for nearest items.
    """

    examples: Sequence[Example]
    pictures: tuple[str, ...]
    rows: "asyncio.Task[Rows] | None" = None


class DatasetPools:
    """The datasets used last, of a large one always the same items. Use it from one event loop."""

    def __init__(
        self,
        features: FeatureCache,
        *,
        device: DeviceThread,
        objects: ObjectStore,
        max_pools: int = MAX_POOLS,
    ) -> None:
        self._device = device
        self._objects = objects
        self._features = features
        self._max_pools = max_pools
        self._pools: OrderedDict[tuple[str, str | None], asyncio.Task[Pool]] = OrderedDict()

    async def choose(
        self, use: DemonstrationsUse, *, question: str, images: Sequence[Picture]
    ) -> tuple[Example, ...]:
        """The demonstrations for a query, none of which shows a picture of the query.

        Raises:
            NotFoundError: There is no such file.
            InvalidDatasetError: It is no dataset.
            InvalidInputError: It has fewer usable items than asked for.
        """
        pool = await self._pool(use.storage_key, use.split)
        taken = {await asyncio.to_thread(shown_digest, image) for image in images}
        usable = [index for index, digest in enumerate(pool.pictures) if digest not in taken]
        if len(usable) < use.shots:
            raise InvalidInputError(
                f"Too few demonstrations in the dataset: wanted {use.shots}, found {len(usable)}"
            )
        if use.selection == "random":
            generator = generator_for(use.seed, "demonstrations")
            chosen = tuple(generator.choice(len(usable), size=use.shots, replace=False).tolist())
        elif use.selection == "balanced":
            answers = [pool.examples[place].answer for place in usable]
            chosen = await asyncio.to_thread(
                balanced_context, answers, shots=use.shots, query=0, seed=use.seed
            )
        else:
            similarities = await self._similarities(pool, question=question, images=images)
            chosen = nearest_context(similarities[usable], shots=use.shots)
        return tuple(pool.examples[usable[place]] for place in chosen)

    async def _pool(self, key: str, split: str | None) -> Pool:
        place = (key, split)
        loading = self._pools.get(place)
        if loading is None or (loading.done() and loading.exception() is not None):
            loading = asyncio.create_task(self._load(key, split))
            self._pools[place] = loading
        self._pools.move_to_end(place)
        while len(self._pools) > self._max_pools:
            self._pools.popitem(last=False)
        return await asyncio.shield(loading)

    async def _load(self, key: str, split: str | None) -> Pool:
        async with self._objects.local_copy(key) as path:
            examples = await asyncio.to_thread(
                load_examples, str(path), split=split, limit=MAX_ITEMS
            )
        pictures = await asyncio.to_thread(
            lambda: tuple(
                "" if example.image is None else shown_digest(example.image) for example in examples
            )
        )
        return Pool(examples=examples, pictures=pictures)

    async def _similarities(
        self, pool: Pool, *, question: str, images: Sequence[Picture]
    ) -> Float32[np.ndarray, " items"]:
        if pool.rows is None or (pool.rows.done() and pool.rows.exception() is not None):
            pool.rows = asyncio.create_task(self._embed(pool.examples))
        rows = await asyncio.shield(pool.rows)
        image = images[0] if images else None
        query = await self._device.call(lambda: embed(self._features, [image], [question]))
        similarities: Float32[np.ndarray, " items"] = rows @ query[0]
        return similarities

    async def _embed(self, examples: Sequence[Example]) -> Rows:
        chunks = []
        for start in range(0, len(examples), CHUNK_ITEMS):
            chunk = examples[start : start + CHUNK_ITEMS]
            embedded = partial(
                embed,
                self._features,
                [example.image for example in chunk],
                [example.question for example in chunk],
            )
            chunks.append(await self._device.call(embedded))
        return np.concatenate(chunks)
