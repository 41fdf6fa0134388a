"""Finds the stored vectors that fit a query, or abstains: wrong vectors are worse than none.

A snapshot of the index says what may be found and how near each is; Postgres describes what was
found and says in the same look whether the snapshot was of the present.
"""

import asyncio
import contextlib
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select
from sqlalchemy.exc import OperationalError

from app.core.access import DEFAULT_WORKSPACE
from app.core.errors import InvalidInputError, NotFoundError, UnavailableError
from app.library.catalogue.filters import VectorFilters, matching_ids
from app.library.database import (
    Sessions,
    logging_failures,
    read_one_moment,
    without_transactions,
)
from app.library.evaluations import held_out_gains
from app.library.records import VectorRecord
from app.library.search.index import MAX_ACCEPTED, Snapshot
from app.library.search.overlaps import overlaps_in
from app.library.search.verdicts import (
    Hit,
    Match,
    RetrievalResult,
    choose,
    near_hits,
    nearest_by_name,
)
from app.library.tables import IndexEpochRow, VectorRow
from app.library.task_keys import (
    FloatArray,
    changed_vectors,
    current_epochs,
    get_space,
    load_keys,
    unit_rows,
)
from app.library.vector_rows import VECTOR_ROWS, record_of_vector
from app.library.workspaces import in_workspace

MAX_K: Final = 100
# States of vectors that are not shown to help.
UNSHOWN: Final = ("unproven", "ineffective", "collapsed")

_EPOCH: Final = select(IndexEpochRow.epoch).where(IndexEpochRow.space == bindparam("space"))
# In one statement, which is one round trip and sees one moment: with the snapshot's epoch, the
# vectors are of the snapshot's state. An array, so that any number of ids is the same statement.
_FOUND: Final = VECTOR_ROWS.add_columns(_EPOCH.scalar_subquery()).where(
    VectorRow.id == any_(bindparam("ids", type_=ARRAY(Uuid))), VectorRow.deleted.is_(None)
)

Answer = TypeVar("Answer")


class Retriever:
    """Keeps a snapshot of each space near the database's state and searches it.

    A search whose snapshot turns out to be of the past is done again with one of the present, so a
    committed key is found by the next search. The background task only makes that rare.

    What the sessions do not see is not found. `margin` is the least lead of the best vectors over
    those of any other name; `prefer` is the tag, alias or name that says which of several for one
    task is meant.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        margin: float = 0.0,
        prefer: str = "preferred",
        poll_seconds: float = 1.0,
        num_threads: int = 2,
    ) -> None:
        self._sessions = sessions
        # A session's work takes as long as the statement.
        self._engine = without_transactions(sessions)
        self._margin = margin
        self._prefer = prefer
        self._poll_seconds = poll_seconds
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="retrieval")
        self._snapshots: dict[str, Snapshot] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads every space, later where the database is away, and begins to watch the epochs."""
        with contextlib.suppress(OperationalError, OSError):
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

    async def encode(self) -> None:
        """Makes what searches of large spaces are faster with, where many keys are without it."""
        for snapshot in list(self._snapshots.values()):
            if snapshot.wants_codes:
                await self._compute(snapshot.encode)

    def epoch(self, space: str) -> int:
        """The epoch of the snapshot at hand; 0 when there is none."""
        snapshot = self._snapshots.get(space)
        return snapshot.epoch if snapshot else 0

    async def overlaps(self, vector_id: uuid.UUID) -> list[str]:
        """The other names, in order, that no key tells from these vectors' task.

        `auto` abstains between them unless one is preferred. Retired vectors do not count, nor do
        other versions of the name.
        """
        await self._refresh()
        found = set()
        for snapshot in list(self._snapshots.values()):
            ask = partial(overlaps_in, snapshot, vector_id, statuses=("ready", *UNSHOWN))
            found.update(await self._compute(ask))
        return sorted(found)

    async def search(
        self,
        embedding: FloatArray,
        *,
        space: str,
        backbone_fingerprint: str,
        k: int = 5,
        min_epoch: int | None = None,
        prefer: str | None = None,
        only_ready: bool = True,
        workspace: str = DEFAULT_WORKSPACE,
        filters: VectorFilters | None = None,
    ) -> RetrievalResult:
        """The vectors of this backbone that are nearest to the query.

        The embedding is `[dimension]` float32 from the encoder that the space is named after.
        `min_epoch`, from `add_keys`, is the state of the keys that must at least be searched;
        `prefer` stands in for that of all searches; what does not pass the filters is as if it were
        not stored.

        Raises:
            InvalidInputError: The embedding or `k` is out of bounds.
            NotFoundError: Several fit alike, and nothing that is stored has what is preferred.
            UnavailableError: The database itself is not at `min_epoch` yet.
        """
        if not 1 <= k <= MAX_K:
            raise InvalidInputError(f"k is between 1 and {MAX_K}, found {k}")
        among = None if filters is None else await self._matching(filters, workspace)
        query = unit_rows(embedding.reshape(1, -1))[0]

        def look(snapshot: Snapshot | None) -> tuple[list[Hit], set[str]]:
            if snapshot is None:
                return [], set()
            hits = snapshot.search(
                query,
                backbone_fingerprint=backbone_fingerprint,
                workspace=workspace,
                among=among,
                statuses=("ready",) if only_ready else ("ready", *UNSHOWN),
                # The lead over another name may have to look past many versions of one name.
                k=sys.maxsize if self._margin else max(k, MAX_ACCEPTED),
            )
            return hits, _alike(snapshot, hits, query=query)

        snapshot = self._snapshots.get(space)
        hits, alike = await self._compute(partial(look, snapshot))
        records, epoch = await self._describe(space, hits, k=k)
        if min_epoch is not None and epoch < min_epoch:
            raise UnavailableError(
                f"Wanted the keys of epoch {min_epoch}, found {epoch}", retry_after_seconds=1.0
            )
        if epoch > (0 if snapshot is None else snapshot.epoch):
            snapshot = await self._advance(space, until=epoch)
            hits, alike = await self._compute(partial(look, snapshot))
            records, _ = await self._describe(space, hits, k=k)
        # What was deleted since is not told any more.
        gone = {hit.vector_id for hit in _leading(hits, k=k)} - set(records)
        if gone and snapshot is not None:
            hits = [hit for hit in hits if hit.vector_id not in gone]
            alike = await self._compute(partial(_alike, snapshot, hits, query=query))
        accepted = [hit.vector_id for hit in hits if hit.is_accepted]
        async with self._sessions() as session:
            gains = await held_out_gains(session, accepted) if len(accepted) > 1 else {}
        chosen, reason = choose(
            hits,
            records,
            gains=gains,
            margin=self._margin,
            prefer=prefer or self._prefer,
            alike=alike,
        )
        if reason == "ambiguous" and prefer is not None:
            await self._require_stored(prefer, workspace)
        known = [hit for hit in chosen if hit.vector_id in records][:k]
        return RetrievalResult(
            matches=tuple(Match(**vars(hit), vector=records[hit.vector_id]) for hit in known),
            abstained=reason is not None,
            reason=reason,
            epoch=0 if snapshot is None else snapshot.epoch,
        )

    async def _matching(self, filters: VectorFilters, workspace: str) -> frozenset[uuid.UUID]:
        async with in_workspace(self._sessions, workspace)() as session:
            return await matching_ids(session, filters)

    async def _require_stored(self, prefer: str, workspace: str) -> None:
        tag, alias = VectorFilters(tags=(prefer,)), VectorFilters(alias=prefer)
        for filters in (VectorFilters(name=prefer), tag, alias):
            if await self._matching(filters, workspace):
                return
        raise NotFoundError(
            f"Several vectors fit alike, and no vector has the tag, alias or name {prefer}",
            details={"param": "prefer"},
        )

    async def _compute(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _describe(
        self, space: str, hits: Sequence[Hit], *, k: int
    ) -> tuple[dict[uuid.UUID, VectorRecord], int]:
        """What may be told of, and the space's epoch afterwards: 0 when it has none."""
        ids = [hit.vector_id for hit in _leading(hits, k=k)]
        async with self._engine.connect() as connection:
            found = (await connection.execute(_FOUND, {"ids": ids, "space": space})).all()
            if found:
                records = map(record_of_vector, found)
                return {record.id: record for record in records}, found[0][-1]
            return {}, await connection.scalar(_EPOCH, {"space": space}) or 0

    async def _advance(self, space: str, *, until: int) -> Snapshot:
        """A snapshot of at least this epoch, made from the one at hand where there is one."""
        async with self._locks.setdefault(space, asyncio.Lock()):
            old = self._snapshots.get(space)
            if old is not None and old.epoch >= until:
                return old
            async with self._sessions() as session:
                await read_one_moment(session)
                state = await get_space(session, space)
                if old is None or (old.dimension, old.image_width) != state[1:]:
                    keys = await load_keys(session, space)
                    build = partial(Snapshot.build, space, keys=keys, **state._asdict())
                else:
                    changed = await changed_vectors(session, space, after=old.epoch)
                    keys = await load_keys(session, space, vector_ids=changed)
                    build = partial(old.update, epoch=state.epoch, changed=changed, keys=keys)
            self._snapshots[space] = new = await self._compute(build)
            return new

    async def _refresh(self) -> None:
        async with self._sessions() as session:
            epochs = await current_epochs(session)
        for space, epoch in epochs.items():
            if self.epoch(space) < epoch:
                await self._advance(space, until=epoch)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            with logging_failures("cannot refresh the index"):
                await self._refresh()
                await self.encode()


def _leading(hits: Sequence[Hit], *, k: int) -> Sequence[Hit]:
    """Those that an answer or its verdict may speak of."""
    return hits[: max(k, len(near_hits(hits)))]


def _alike(snapshot: Snapshot, hits: Sequence[Hit], *, query: FloatArray) -> set[str]:
    """The names that such a query cannot tell from the first hit, if that accepts it."""
    if not hits or not hits[0].is_accepted:
        return set()
    ids = {hit.vector_id: name for name, hit in nearest_by_name(near_hits(hits)).items()}
    found = snapshot.alike(hits[0].vector_id, ids, query=query)
    return {ids[one] for one in found}
