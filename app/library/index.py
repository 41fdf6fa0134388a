"""Nearest keys, exactly: immutable snapshots of one space, compared with FAISS.

A snapshot holds every key and everything that a search is narrowed by, so a search is one mask and
one pass over the keys. It never changes: an update makes a new one that shares the keys' memory
with the old, which goes on reading the part it knows. Knows no SQL and no vectors.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from app.core.errors import InvalidInputError
from app.library.keys import Float32Array, FloatArray, VectorKeys, unit_rows

MAX_DEAD_SHARE: Final = 0.25
# Spare memory of a fresh copy, which is not touched before it is used.
GROWTH: Final = 1.5
LEAST_SPARE_ROWS: Final = 1024
TIE: Final = 1e-6

Rows: TypeAlias = npt.NDArray[np.int64]

# Searches already run side by side, one thread each.
faiss.omp_set_num_threads(1)


@dataclass(frozen=True)
class Hit:
    """One set of vectors with its best similarity to the query, and its own threshold."""

    vector_id: uuid.UUID
    name: str
    score: float
    threshold: float


@dataclass(eq=False)
class _Block:
    """Rows that are written once, one after the other.

    Attributes:
        rows: `[capacity, dimension]`.
        used: How many are written.
    """

    rows: Float32Array
    used: int


def _block(parts: Sequence[Float32Array]) -> _Block:
    rows = np.concatenate(parts)
    capacity = int(len(rows) * GROWTH) + LEAST_SPARE_ROWS
    block = _Block(np.empty((capacity, rows.shape[1]), dtype=np.float32), used=len(rows))
    block.rows[: len(rows)] = rows
    return block


@dataclass(frozen=True, eq=False)
class _Table:
    """One line for each set of vectors; its keys are the rows from `starts` to before `stops`.

    What a search is narrowed by are numbers: comparing texts would take longer than the search.
    """

    vector_ids: npt.NDArray[np.object_]
    names: npt.NDArray[np.object_]
    backbones: npt.NDArray[np.int32]
    statuses: npt.NDArray[np.int32]
    thresholds: npt.NDArray[np.float64]
    starts: Rows
    stops: Rows

    @classmethod
    def of(cls, keys: Sequence[VectorKeys], *, codes: dict[str, int], first_row: int) -> Self:
        """The lines of these keys; texts that have no code yet get one."""

        def coded(texts: Iterable[str]) -> npt.NDArray[np.int32]:
            return np.array([codes.setdefault(text, len(codes)) for text in texts], dtype=np.int32)

        lengths = np.array([len(item.embeddings) for item in keys], dtype=np.int64)
        stops = first_row + np.cumsum(lengths)
        return cls(
            np.array([item.vector_id for item in keys], dtype=object),
            np.array([item.name for item in keys], dtype=object),
            coded(item.backbone_fingerprint for item in keys),
            coded(item.status for item in keys),
            np.array([item.threshold for item in keys], dtype=np.float64),
            stops - lengths,
            stops,
        )

    def __len__(self) -> int:
        return len(self.vector_ids)

    @property
    def num_rows(self) -> int:
        """Rows that belong to a line."""
        return int((self.stops - self.starts).sum())

    def without(self, gone: Collection[uuid.UUID]) -> Self:
        kept = np.array([one not in gone for one in self.vector_ids], dtype=bool)
        return self._each(lambda column: column[kept])

    def joined(self, other: Self) -> Self:
        columns = (getattr(other, one.name) for one in fields(self))
        return self._each(lambda column: np.concatenate([column, next(columns)]))

    def packed(self) -> Self:
        """The same when the rows lie one after the other from 0 on."""
        lengths = self.stops - self.starts
        stops = np.cumsum(lengths)
        return replace(self, starts=stops - lengths, stops=stops)

    def _each(self, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Self:
        return type(self)(*(change(getattr(self, one.name)) for one in fields(self)))


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
    _block: _Block = field(repr=False)
    _num_rows: int
    _table: _Table = field(repr=False)
    _codes: dict[str, int] = field(repr=False)

    @classmethod
    def build(cls, space: str, *, epoch: int, dimension: int, keys: Sequence[VectorKeys]) -> Self:
        """A snapshot of exactly these keys.

        Args:
            space: Identity of the encoder.
            epoch: What they are the state of.
            dimension: Length of a key.
            keys: One item for each set of vectors.
        """
        parts = [np.empty((0, dimension), dtype=np.float32), *(item.embeddings for item in keys)]
        block = _block(parts)
        codes: dict[str, int] = {}
        table = _Table.of(keys, codes=codes, first_row=0)
        return cls(space, epoch, dimension, block, block.used, table, codes)

    @property
    def num_vectors(self) -> int:
        """Sets of vectors that can be found."""
        return len(self._table)

    @property
    def num_rows(self) -> int:
        """Rows that a search passes over, live or not."""
        return self._num_rows

    def update(
        self, *, epoch: int, changed: Collection[uuid.UUID], keys: Sequence[VectorKeys]
    ) -> "Snapshot":
        """The snapshot after some sets of vectors changed; this one stays as it is.

        Not for two threads at once.

        Args:
            epoch: What the result is the state of.
            changed: Sets of vectors whose old keys no longer count.
            keys: The present keys of those that still have any.
        """
        kept = self._table.without(changed)
        codes = dict(self._codes)
        table = kept.joined(_Table.of(keys, codes=codes, first_row=self._num_rows))
        fresh = [item.embeddings for item in keys]
        end = self._num_rows + sum(map(len, fresh))
        # Rows beyond ours are those of another successor.
        has_room = self._block.used == self._num_rows and end <= len(self._block.rows)
        if not has_room or table.num_rows < (1 - MAX_DEAD_SHARE) * end:
            rows = self._block.rows
            old = [rows[start:stop] for start, stop in zip(kept.starts, kept.stops, strict=True)]
            block, table = _block([rows[:0], *old, *fresh]), table.packed()
        else:
            block = self._block
            block.rows[self._num_rows : end] = np.concatenate([block.rows[:0], *fresh])
            block.used = end
        return Snapshot(self.space, epoch, self.dimension, block, block.used, table, codes)

    def search(
        self,
        query: FloatArray,
        *,
        backbone_fingerprint: str,
        statuses: Collection[str],
        k: int,
    ) -> list[Hit]:
        """The `k` fitting sets of vectors nearest to the query, best first; exact.

        The score of a set of vectors is the largest cosine similarity over its keys. Of equal ones
        the newer comes first.

        Args:
            query: `[dimension]`, of any length but zero.
            backbone_fingerprint: Only vectors made for it.
            statuses: Only vectors in one of these states.
            k: At most so many.

        Raises:
            InvalidInputError: The query is zero, not finite or of another dimension.
        """
        unit = unit_rows(np.atleast_2d(query))[0]
        if len(unit) != self.dimension:
            raise InvalidInputError(f"Wanted an embedding of {self.dimension}, found {len(unit)}")
        table, codes = self._table, self._codes
        wanted = [codes[status] for status in statuses if status in codes]
        is_made_for_it = table.backbones == codes.get(backbone_fingerprint, -1)
        fitting = np.flatnonzero(is_made_for_it & np.isin(table.statuses, wanted))
        if not len(fitting):
            return []
        scores = self._similarities(unit, fitting)
        # Two trainings on the same data have the same keys, but for the last bits of a sum; then
        # the newer one is meant, and ids grow with time.
        steps = np.rint(scores.astype(np.float64) / TIE)
        least = np.partition(steps, -k)[-k] if k < len(steps) else -np.inf
        hits = [
            (-steps[place], self._hit(fitting[place], float(scores[place])))
            for place in np.flatnonzero(steps >= least)
        ]
        hits.sort(key=lambda ranked: (ranked[0], -ranked[1].vector_id.int))
        return [hit for _, hit in hits[:k]]

    def _hit(self, line: np.int64, score: float) -> Hit:
        table = self._table
        return Hit(table.vector_ids[line], table.names[line], score, float(table.thresholds[line]))

    def _similarities(self, query: Float32Array, fitting: Rows) -> Float32Array:
        """`[fitting]`: the largest similarity over the keys of each."""
        # One place more, since a segment may end where the rows do.
        scores = np.full(self._num_rows + 1, -np.inf, dtype=np.float32)
        faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]  # its stubs do not have it
            faiss.swig_ptr(scores),
            faiss.swig_ptr(query),
            faiss.swig_ptr(self._block.rows),
            self.dimension,
            self._num_rows,
        )
        edges = np.stack([self._table.starts[fitting], self._table.stops[fitting]], axis=1)
        # Every other segment lies between two sets of vectors.
        best: Float32Array = np.maximum.reduceat(scores, edges.ravel())[::2]
        return best
