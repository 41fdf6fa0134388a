"""Ten thousand requests with a thousand vectors: nothing is left behind, and no token is wrong.

Run by `make soak`; too long for every landing.
"""

import asyncio
import gc
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from app.core.errors import NotFoundError
from app.core.identifiers import sha256_hex
from app.core.settings import Settings
from app.library.storage import ObjectStore
from app.method.backbone.loading import Backbone
from app.worker.assembly import ServingParts, serving_parts
from tests.fakes.answers import answer_of
from tests.fakes.models.backbones import tiny_backbone
from tests.fakes.models.traffic import COMBINATIONS, Arrival, arrivals, check_arrivals
from tests.fakes.servers.serving import HIGHEST_DOSE, png, request_of
from tests.fakes.vectors import make_vector_file
from tests.fakes.waiting import until

pytestmark = [pytest.mark.soak]

NUM_REQUESTS = 10_000
NUM_VECTORS = 1000
NUM_PICTURES = 60
CONCURRENT = 24
CANCELLED_SHARE = 0.05
WARM_SHARE = 0.25
GROWTH = 0.02
EXAMPLES = 60


class Library:
    """A thousand vector files, made again whenever one is fetched."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._seeds = {sha256_hex(self._file(seed)): seed for seed in range(NUM_VECTORS)}
        self.digests = list(self._seeds)
        self.fetched: set[str] = set()

    def _file(self, seed: int) -> bytes:
        return make_vector_file(seed, backbone=self._backbone.description)

    async def fetch(self, digest: str) -> bytes:
        if digest not in self._seeds:
            raise NotFoundError("no such file")
        self.fetched.add(digest)
        return self._file(self._seeds[digest])

    def use(self, digest: str, strength: float) -> dict[str, object]:
        return {"sha256": digest, "name": "v", "version": 1, "strength": strength}


@pytest.fixture
async def library() -> Library:
    return Library(BACKBONE)


@pytest.fixture
async def parts(library: Library, tmp_path: Path) -> AsyncIterator[ServingParts]:
    objects = ObjectStore((tmp_path / "objects").as_uri())
    limits = Settings(max_rows=16, max_waiting=64, vector_cache_slots=64, max_dose=HIGHEST_DOSE)
    async with serving_parts(
        lambda: BACKBONE, limits, fetch=library.fetch, objects=objects
    ) as made:
        yield made


BACKBONE = tiny_backbone()


class Crowd:
    """Callers who ask one thing after the other, and some of whom leave in between."""

    def __init__(self, parts: ServingParts, library: Library) -> None:
        self._parts = parts
        self._library = library
        self._random = random.Random(7)  # noqa: S311 - a plan, no secret
        self._pictures = [png((shade * 4, 99, 17)) for shade in range(NUM_PICTURES)]
        self.num_answered = self.num_cancelled = 0

    async def ask(self, number: int) -> None:
        draw = self._random
        digest = self._library.digests[number % NUM_VECTORS]
        uses = [self._library.use(digest, draw.choice([1.0, -0.5, 2.0]))]
        if draw.random() < 0.2:
            uses.append(self._library.use(draw.choice(self._library.digests), 0.5))
        request = request_of(
            vectors=uses if draw.random() < 0.9 else [],
            images=[draw.choice(self._pictures)] if draw.random() < 0.8 else [],
            max_tokens=draw.randint(1, 12),
            temperature=draw.choice([0.0, 1.0]),
            seed=number,
            baseline=draw.random() < 0.1,
            stop=["a"] if draw.random() < 0.1 else [],
        )
        is_streamed, leaves = draw.random() < 0.5, draw.random() < CANCELLED_SHARE
        request = request.model_copy(update={"stream": is_streamed})
        task = asyncio.ensure_future(answer_of(self._parts.serving, request))
        if leaves:
            await asyncio.sleep(draw.random() * 0.02)
            self.num_cancelled += task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        answer = await task
        expected = self._parts.backbone.description.num_sites if request.vectors else 0
        assert answer.receipt.sites_hit == expected
        self.num_answered += 1

    async def ask_all(self, numbers: range) -> None:
        gate = asyncio.Semaphore(CONCURRENT)

        async def one(number: int) -> None:
            async with gate:
                await self.ask(number)

        await asyncio.gather(*map(one, numbers))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.anyio
async def test_nothing_is_left_behind(parts: ServingParts, library: Library) -> None:
    crowd = Crowd(parts, library)
    batch = NUM_REQUESTS // 20
    warm_at, warm = int(NUM_REQUESTS * WARM_SHARE), 0
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("soak", total=NUM_REQUESTS)
        for begin in range(0, NUM_REQUESTS, batch):
            await crowd.ask_all(range(begin, min(begin + batch, NUM_REQUESTS)))
            bars.update(task, completed=begin + batch)
            gc.collect()
            if begin < warm_at <= begin + batch:
                warm = _resident_bytes()
    await until(lambda: not parts.engine.has_work)
    grown = _resident_bytes() / warm - 1
    Console(stderr=True).print(
        f"{crowd.num_answered} answered, {crowd.num_cancelled} cancelled, "
        f"{len(library.fetched)} vectors, memory {warm / 2**20:.0f} MiB, grown by {grown:.2%}"
    )
    assert crowd.num_answered + crowd.num_cancelled >= NUM_REQUESTS * 0.99
    assert crowd.num_cancelled > 0
    assert len(library.fetched) >= NUM_VECTORS * 0.99
    assert (parts.engine.num_running, parts.engine.num_waiting) == (0, 0)
    assert parts.serving.num_requests == 0
    vector_cache = parts.serving._vector_cache
    assert all(resident.is_idle for resident in vector_cache._residents.values())
    slots = [*vector_cache._free, *(resident.slot for resident in vector_cache._residents.values())]
    assert sorted(slots) == list(range(1, len(vector_cache._slots)))
    assert grown <= GROWTH


@pytest.mark.parametrize(("family", "attention"), COMBINATIONS)
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=st.lists(arrivals(), min_size=2, max_size=16))
def test_every_token_is_that_of_the_request_alone(
    family: str, attention: str, plan: list[Arrival]
) -> None:
    check_arrivals(family, attention, plan, max_rows=6)
