"""Nearest keys, exactly: immutable snapshots of one space, searched with FAISS.

A snapshot is never changed, because adding to a FAISS index while another thread searches it
crashes. An update makes a new snapshot that shares the large part with the old one and carries
what came later in a small tail; the caller swaps one reference. Knows no SQL and no vectors.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import faiss
import numpy as np
import numpy.typing as npt

from app.library.keys import MAX_EXEMPLARS, Float32Array, FloatArray, VectorKeys, unit_rows

MAX_TAIL_ROWS: Final = 4096
MAX_DEAD_SHARE: Final = 0.25
TIE: Final = 1e-6
KEYS_PER_VECTOR: Final = 1 + MAX_EXEMPLARS

Rows = npt.NDArray[np.int64]

# Searches already run side by side, one thread each.
faiss.omp_set_num_threads(1)


@dataclass(frozen=True)
class Hit:
    """One set of vectors with its best similarity to the query, and its own threshold."""

    vector_id: uuid.UUID
    score: float
    threshold: float


@dataclass(frozen=True, eq=False)
class _Entry:
    rows: Rows
    threshold: float


def _order(scored: tuple[uuid.UUID, float]) -> tuple[int, int]:
    # Two trainings on the same data have the same keys; then the newer one is meant, and ids grow
    # with time. The large part and the tail differ in the last bits of a sum.
    vector_id, score = scored
    return -round(score / TIE), -vector_id.int


def _flat(rows: Float32Array) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows, dtype=np.float32))
    return index


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All keys of one space as of one epoch.

    Attributes:
        space: Identity of the encoder.
        epoch: Every change up to this one is in it.
        dimension: Length of a key.
    """

    space: str
    epoch: int
    dimension: int
    _base: faiss.IndexFlatIP
    _tail: Float32Array
    _entries: Mapping[uuid.UUID, _Entry] = field(repr=False)

    @classmethod
    def build(cls, space: str, *, epoch: int, dimension: int, keys: Sequence[VectorKeys]) -> Self:
        """A snapshot of exactly these keys.

        Args:
            space: Identity of the encoder.
            epoch: What they are the state of.
            dimension: Length of a key.
            keys: One item for each set of vectors.
        """
        entries: dict[uuid.UUID, _Entry] = {}
        parts = [np.empty((0, dimension), dtype=np.float32)]
        start = 0
        for item in keys:
            rows = np.arange(start, start + len(item.embeddings), dtype=np.int64)
            entries[item.vector_id] = _Entry(rows, item.threshold)
            parts.append(item.embeddings)
            start += len(rows)
        base = np.concatenate(parts)
        return cls(space, epoch, dimension, _flat(base), base[:0], entries)

    @property
    def num_vectors(self) -> int:
        """Sets of vectors that can be found."""
        return len(self._entries)

    @property
    def num_tail_rows(self) -> int:
        """Rows outside the large part, live or not."""
        return len(self._tail)

    def _keys(self) -> list[VectorKeys]:
        everything = np.concatenate([self._base.reconstruct_n(0, self._base.ntotal), self._tail])
        return [
            VectorKeys(vector_id, everything[entry.rows], entry.threshold)
            for vector_id, entry in self._entries.items()
        ]

    def update(
        self, *, epoch: int, changed: Collection[uuid.UUID], keys: Sequence[VectorKeys]
    ) -> "Snapshot":
        """The snapshot after some sets of vectors changed; this one stays as it is.

        Args:
            epoch: What the result is the state of.
            changed: Sets of vectors whose old keys no longer count.
            keys: The present keys of those that still have any.
        """
        entries = {
            vector_id: entry
            for vector_id, entry in self._entries.items()
            if vector_id not in changed
        }
        start = self._base.ntotal + len(self._tail)
        for item in keys:
            rows = np.arange(start, start + len(item.embeddings), dtype=np.int64)
            entries[item.vector_id] = _Entry(rows, item.threshold)
            start += len(rows)
        tail = np.concatenate([self._tail, *(item.embeddings for item in keys)])
        updated = Snapshot(self.space, epoch, self.dimension, self._base, tail, entries)
        live = sum(len(entry.rows) for entry in entries.values())
        if len(tail) <= MAX_TAIL_ROWS and live >= (1 - MAX_DEAD_SHARE) * start:
            return updated
        return Snapshot.build(
            self.space,
            epoch=epoch,
            dimension=self.dimension,
            keys=updated._keys(),
        )

    def search(self, query: FloatArray, *, allowed: Collection[uuid.UUID], k: int) -> list[Hit]:
        """The `k` allowed sets of vectors nearest to the query, best first; exact.

        The score of a set of vectors is the largest cosine similarity over its keys. Of equal ones
        the newer comes first.

        Args:
            query: `[dimension]`, of any length but zero.
            allowed: Only these can be found.
            k: At most so many.

        Raises:
            InvalidInputError: The query is zero, not finite or of another dimension.
        """
        unit = unit_rows(np.atleast_2d(query))
        entries = {
            vector_id: self._entries[vector_id]
            for vector_id in allowed
            if vector_id in self._entries
        }
        if not entries:
            return []
        rows = np.concatenate([entry.rows for entry in entries.values()])
        owners = [vector_id for vector_id, entry in entries.items() for _ in entry.rows]
        owner_of = dict(zip(rows.tolist(), owners, strict=True))
        best: dict[uuid.UUID, float] = {}
        for row, score in self._score(unit, rows, most=k * KEYS_PER_VECTOR):
            owner = owner_of[row]
            best[owner] = max(score, best.get(owner, -np.inf))
        ranked = sorted(best.items(), key=_order)[:k]
        return [Hit(owner, score, entries[owner].threshold) for owner, score in ranked]

    def _score(self, query: Float32Array, rows: Rows, *, most: int) -> list[tuple[int, float]]:
        in_base = rows[rows < self._base.ntotal]
        in_tail = rows[rows >= self._base.ntotal]
        scored: list[tuple[int, float]] = []
        if len(in_base):
            # The parameters do not keep the selector alive; this name does.
            selector = faiss.IDSelectorBatch(in_base)
            parameters = faiss.SearchParameters()
            parameters.sel = selector
            count = min(most, len(in_base))
            scores, found = self._base.search(query, count, params=parameters)
            scored += zip(found[0].tolist(), scores[0].tolist(), strict=True)
        if len(in_tail):
            similarities = self._tail[in_tail - self._base.ntotal] @ query[0]
            scored += zip(in_tail.tolist(), similarities.tolist(), strict=True)
        return scored
