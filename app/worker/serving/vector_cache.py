"""Vectors resident on the device: fetched once, held while used, dropped least recently used first.

Slot 0 is all zeros and belongs to nobody.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final

import torch

from app.core.backbones import require_same_backbone
from app.core.errors import CorruptDataError, InvalidInputError
from app.core.identifiers import sha256_hex
from app.core.telemetry.logs import get_logger
from app.core.vectors.file import decode_vector_file
from app.core.vectors.tensors import VectorTensors
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.worker.device import DeviceThread
from app.worker.engine.sequence import Shift
from app.worker.serving.metrics import WorkerMetrics

Fetch = Callable[[str], Awaitable[bytes]]

ZERO_SLOT: Final = 0

log = get_logger(__name__)


@dataclass(kw_only=True, eq=False)
class _Resident:
    """One slot's tenant. It may be evicted only while nobody holds it."""

    slot: int
    loading: "asyncio.Task[None]"
    holders: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether its slot may be given away; a load under way would still write to it."""
        return self.holders == 0 and self.loading.done()


class VectorCache:
    """A fixed number of slots on the device, addressed by the digest of the stored file.

    Use it from one event loop. Digests name immutable bytes, so nothing here can go stale.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: DeviceThread,
        fetch: Fetch,
        num_slots: int,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._backbone = backbone
        self._device = device
        self._fetch = fetch
        self._metrics = metrics or WorkerMetrics()
        shape = (num_slots + 1, backbone.num_layers, 2, backbone.hidden_size)
        self._slots = torch.zeros(shape, device=backbone.device)
        self._free = list(range(num_slots, ZERO_SLOT, -1))
        self._residents: OrderedDict[str, _Resident] = OrderedDict()
        self._highest_doses: dict[int, float] = {}
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def num_slots(self) -> int:
        """Most vectors that are resident together."""
        return len(self._slots) - 1

    @property
    def num_resident(self) -> int:
        """Vectors that take a slot."""
        return len(self._residents)

    @property
    def num_bytes(self) -> int:
        """Device memory of all slots, taken once at the start."""
        return self._slots.nbytes

    @asynccontextmanager
    async def hold(self, digests: Iterable[str]) -> AsyncIterator[Mapping[str, int]]:
        """Keep these vectors on the device during the block.

        Waits while others hold every slot, and behind those who wait for one. All slots are taken
        at once, so that two requests never wait for each other.

        Yields:
            The slot of each digest.

        Raises:
            CorruptDataError: Stored bytes do not have the digest they are stored under.
            IncompatibleBackboneError: A vector was made for another backbone.
            InvalidVectorFileError: Stored bytes are no vector file.
            InvalidInputError: More vectors than there are slots.
        """
        wanted = tuple(dict.fromkeys(digests))
        if len(wanted) > self.num_slots:
            raise InvalidInputError(
                f"Too many vectors in one request: wanted at most {self.num_slots}, "
                f"found {len(wanted)}"
            )
        if not wanted:
            yield {}
            return
        # First come, first served: else vectors that are always in use would keep others out.
        async with self._turn:
            while not self._has_room(wanted):
                await self._freed.wait()
            # Those that are here are held first, lest making room for the others evicts them.
            absent_last = sorted(wanted, key=lambda digest: digest not in self._residents)
            residents = {digest: self._take(digest) for digest in absent_last}
        try:
            for resident in residents.values():
                # The load goes on for others when this request is cancelled.
                await asyncio.shield(resident.loading)
            yield {digest: resident.slot for digest, resident in residents.items()}
        finally:
            for resident in residents.values():
                resident.holders -= 1
            self._wake()

    def highest_dose(self, slot: int) -> float:
        """The largest dose at which the vector in a slot was seen to answer well; else infinity."""
        return self._highest_doses.get(slot, math.inf)

    def combined(self, parts: Iterable[tuple[int, float]]) -> Shift:
        """The sum of slots times strengths; to be called on the device thread."""
        total = torch.zeros_like(self._slots[ZERO_SLOT])
        for slot, strength in parts:
            total = total + self._slots[slot] * strength
        return total

    def _has_room(self, wanted: tuple[str, ...]) -> bool:
        missing = sum(digest not in self._residents for digest in wanted)
        idle = sum(
            resident.is_idle and digest not in wanted
            for digest, resident in self._residents.items()
        )
        return missing <= len(self._free) + idle

    def _take(self, digest: str) -> _Resident:
        resident = self._residents.get(digest)
        if resident is None:
            slot = self._free.pop() if self._free else self._evict()
            loading = asyncio.create_task(self._load(digest, slot))
            loading.add_done_callback(self._loaded)
            resident = _Resident(slot=slot, loading=loading)
            self._residents[digest] = resident
        else:
            self._metrics.vector_hits.inc()
        self._residents.move_to_end(digest)
        resident.holders += 1
        return resident

    def _evict(self) -> int:
        digest = next(key for key, resident in self._residents.items() if resident.is_idle)
        self._metrics.vector_evictions.inc()
        return self._residents.pop(digest).slot

    def _wake(self) -> None:
        self._freed.set()
        self._freed = asyncio.Event()

    def _loaded(self, loading: "asyncio.Task[None]") -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            # Whoever waits for it is told; maybe nobody is left.
            log.warning("vector not loaded", action="vector_cache.load", error=str(error))
        self._wake()

    async def _load(self, digest: str, slot: int) -> None:
        began = monotonic()
        try:
            blob = await self._fetch(digest)
            tensors, highest_dose = await asyncio.to_thread(self._read, digest, blob)
            self._highest_doses[slot] = highest_dose
            await self._device.call(
                lambda: self._slots[slot].copy_(InContextVectors.from_tensors(tensors).shift())
            )
        except BaseException:
            # Whoever comes next tries anew; those who wait for this load get its error.
            del self._residents[digest]
            self._free.append(slot)
            raise
        self._metrics.vector_loads.inc()
        self._metrics.vector_load_seconds.observe(monotonic() - began)

    def _read(self, digest: str, blob: bytes) -> tuple[VectorTensors, float]:
        found = sha256_hex(blob)
        if found != digest:
            raise CorruptDataError(
                "The stored vector file does not have its digest",
                details={"wanted": digest, "found": found},
            )
        tensors, metadata = decode_vector_file(blob)
        require_same_backbone(
            wanted=self._backbone.description.fingerprint, found=metadata["backbone"]
        )
        return tensors, _highest_dose(metadata)


def _highest_dose(metadata: Mapping[str, str]) -> float:
    try:
        found = float(metadata.get("max_dose", "inf"))
    except ValueError:
        return math.inf
    return found if found > 0 else math.inf
