"""Finds the stored vectors that fit a query, or abstains: wrong vectors are worse than none.

Postgres says what may be found and which epoch the keys are at; a snapshot of the index, brought
up to that epoch, says how near each is. Knows nothing of how an embedding is computed.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import InvalidInputError, UnavailableError
from app.core.logs import get_logger
from app.library.index import Hit, Snapshot
from app.library.keys import (
    FloatArray,
    changed_vectors,
    current_epochs,
    find_space,
    load_keys,
    unit_rows,
)
from app.library.records import VectorRecord
from app.library.tables import KeyRow, VectorRow
from app.library.vectors import get_vectors

MAX_K: Final = 100

AbstainReason: TypeAlias = Literal["no-vectors", "below-threshold", "margin-too-small"]
Sessions: TypeAlias = async_sessionmaker[AsyncSession]
Answer = TypeVar("Answer")

log = get_logger(__name__)


@dataclass(frozen=True)
class Match:
    """Vectors with their similarity to the query and the least that counts as their task."""

    vector: VectorRecord
    score: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """What was found, best first, and whether the best is good enough to be applied.

    Attributes:
        matches: Ranked, also when abstained.
        abstained: Whether no vectors should be applied.
        reason: Why, if abstained.
        epoch: The state of the keys that was searched.
    """

    matches: tuple[Match, ...]
    abstained: bool
    reason: AbstainReason | None
    epoch: int


class Retriever:
    """Keeps a snapshot of each space near the database's state and searches it.

    Every search looks at the database's epoch first, so a committed key is found by the next
    search. The background task only keeps that step short.

    Args:
        sessions: Where sessions come from.
        margin: Least lead of the best vectors over those of any other name.
        poll_seconds: How often the background task looks.
        num_threads: Searches and updates that may compute at once.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        margin: float = 0.0,
        poll_seconds: float = 1.0,
        num_threads: int = 2,
    ) -> None:
        self._sessions = sessions
        self._margin = margin
        self._poll_seconds = poll_seconds
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="retrieval")
        self._snapshots: dict[str, Snapshot] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads every space and begins to watch the epochs."""
        await self._refresh()
        self._poller = asyncio.create_task(self._poll(), name="retrieval epochs")

    async def stop(self) -> None:
        """Ends the watching; searches that run are finished first."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
            self._poller = None
        await asyncio.to_thread(self._threads.shutdown)

    def epoch(self, space: str) -> int:
        """The epoch of the snapshot at hand; 0 when there is none."""
        snapshot = self._snapshots.get(space)
        return snapshot.epoch if snapshot else 0

    async def search(
        self,
        embedding: FloatArray,
        *,
        space: str,
        backbone_fingerprint: str,
        k: int = 5,
        min_epoch: int | None = None,
        include_collapsed: bool = False,
    ) -> RetrievalResult:
        """The vectors of this backbone that are nearest to the query.

        Args:
            embedding: `[dimension]` float32 from the space's encoder.
            space: Identity of the encoder.
            backbone_fingerprint: Only vectors made for it.
            k: At most so many matches, from 1 to 100.
            min_epoch: State of the keys that must at least be searched, from `add_keys`.
            include_collapsed: Whether vectors may be found that are not shown to help.

        Raises:
            InvalidInputError: The embedding or `k` is out of bounds.
            UnavailableError: The database itself is not at `min_epoch` yet.
        """
        if not 1 <= k <= MAX_K:
            raise InvalidInputError(f"k is between 1 and {MAX_K}, found {k}")
        query = unit_rows(embedding.reshape(1, -1))[0]
        unshown = ("unproven", "ineffective", "collapsed")
        statuses = ("ready", *unshown) if include_collapsed else ("ready",)
        async with self._sessions() as session:
            await _read_one_state(session)
            found = await find_space(session, space)
            epoch, dimension = found or (0, len(query))
            if min_epoch is not None and epoch < min_epoch:
                raise UnavailableError(
                    f"Wanted the keys of epoch {min_epoch}, found {epoch}", retry_after_seconds=1.0
                )
            if dimension != len(query):
                raise InvalidInputError(f"Wanted an embedding of {dimension}, found {len(query)}")
            if found is None:
                return RetrievalResult(matches=(), abstained=True, reason="no-vectors", epoch=0)
            names = await _allowed(session, space, backbone_fingerprint, statuses=statuses)
            snapshot = await self._snapshot(session, space, until=epoch, dimension=dimension)
            # The lead over another name may have to look past many versions of one name.
            depth = max(k, len(names)) if self._margin else k
            hits = await self._compute(partial(snapshot.search, query, allowed=names, k=depth))
            records = await get_vectors(session, [hit.vector_id for hit in hits[:k]])
        reason = _reason_to_abstain(hits, names=names, margin=self._margin)
        return RetrievalResult(
            matches=tuple(
                Match(records[hit.vector_id], hit.score, hit.threshold) for hit in hits[:k]
            ),
            abstained=reason is not None,
            reason=reason,
            epoch=snapshot.epoch,
        )

    async def _compute(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _snapshot(
        self, session: AsyncSession, space: str, *, until: int, dimension: int
    ) -> Snapshot:
        """A snapshot of at least this epoch, made from the one at hand where there is one."""
        lock = self._locks.setdefault(space, asyncio.Lock())
        async with lock:
            old = self._snapshots.get(space)
            if old is not None and old.epoch >= until:
                return old
            if old is None:
                keys = await load_keys(session, space)
                build = partial(Snapshot.build, space, epoch=until, dimension=dimension, keys=keys)
            else:
                changed = await changed_vectors(session, space, after=old.epoch, until=until)
                keys = await load_keys(session, space, vector_ids=changed)
                build = partial(old.update, epoch=until, changed=changed, keys=keys)
            self._snapshots[space] = new = await self._compute(build)
            return new

    async def _refresh(self) -> None:
        async with self._sessions() as session:
            await _read_one_state(session)
            for space, epoch in (await current_epochs(session)).items():
                found = await find_space(session, space)
                if found is not None and self.epoch(space) < epoch:
                    await self._snapshot(session, space, until=epoch, dimension=found[1])

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._refresh()
            except (SQLAlchemyError, OSError) as error:
                log.warning("cannot refresh the index", error=type(error).__name__)


async def _read_one_state(session: AsyncSession) -> None:
    """Makes all reads of the session's transaction see the database as of one moment."""
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


async def _allowed(
    session: AsyncSession, space: str, backbone_fingerprint: str, *, statuses: Sequence[str]
) -> dict[uuid.UUID, str]:
    with_keys = select(KeyRow.vector_id).where(KeyRow.space == space).distinct()
    query = select(VectorRow.id, VectorRow.name).where(
        VectorRow.id.in_(with_keys),
        VectorRow.backbone_fingerprint == backbone_fingerprint,
        VectorRow.status.in_(statuses),
        VectorRow.deleted.is_(None),
    )
    return {row.id: row.name for row in await session.execute(query)}


def _reason_to_abstain(
    hits: Sequence[Hit], *, names: Mapping[uuid.UUID, str], margin: float
) -> AbstainReason | None:
    if not hits:
        return "no-vectors"
    best = hits[0]
    if best.score < best.threshold:
        return "below-threshold"
    others = (hit.score for hit in hits if names[hit.vector_id] != names[best.vector_id])
    if best.score - max(others, default=-1.0) < margin:
        return "margin-too-small"
    return None
