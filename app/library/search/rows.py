"""The memory of an index: rows of keys, and a line for each set of vectors that has some.

Rows are there exactly and, where there are many, in 8 bits besides. A pass over many rows takes as
long as reading them does, and 8 bits a number are a quarter of it. How far a similarity of such
rows can be off is known when they are made, so they only say which rows need not be looked at: what
a search tells comes from the exact ones.
"""

import threading
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final, Self, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from app.library.task_keys import Float32Array, VectorKeys

# Spare memory of a fresh copy, which is not touched before it is used.
GROWTH: Final = 1.5
LEAST_SPARE_ROWS: Final = 1024
# Reading fewer rows than that exactly takes less time than what surrounds it.
LEAST_CODED_ROWS: Final = 16_384
# Codes are made anew when a quarter more rows have none.
CODED_GROWTH: Final = 0.25
# So much may sums in another order differ.
ROUNDING: Final = 1e-4
_ROWS_AT_ONCE: Final = 4096

Rows: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowCodes:
    """The first rows of a block in 8 bits a number, each of 256 steps of its column's range.

    Attributes:
        count: How many rows have codes.
        error: By how much a similarity to a query of length 1 is off at most.
    """

    count: int
    error: float
    _index: faiss.IndexIVFScalarQuantizer

    @classmethod
    def of(cls, rows: Float32Array) -> Self:
        """The codes of `[rows, dimension]`; takes seconds for 100,000."""
        # Of the calling thread alone, which would get helpers that stay as long as it does.
        faiss.omp_set_num_threads(1)
        width = rows.shape[1]
        # A single list, since its pass gives every similarity twice as fast as a flat index does.
        lists = faiss.IndexFlatIP(width)
        lists.add(np.zeros((1, width), dtype=np.float32))
        index = faiss.IndexIVFScalarQuantizer(
            lists,
            width,
            1,
            # The query stays as it is; "direct" codes are faster since they round it as well.
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,  # noqa: FBT003 - of the rows, not of their distance from the list's centre
        )
        index.train(rows)
        error = 0.0
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            index.add(some)
            missed = some - index.sq.decode(index.sq.compute_codes(some))
            error = max(error, float(np.linalg.norm(missed, axis=1).max()))
        return cls(len(rows), error + ROUNDING, index)

    def products(self, query: Float32Array) -> Float32Array:
        """`[count]`: the similarity of each row, off by `error` times the query's length at most.

        The query is `[dimension]`.
        """
        _, found, places = self._index.range_search(query[None], -float(np.finfo(np.float32).max))
        products = np.empty(self.count, dtype=np.float32)
        products[places] = found
        return products


@dataclass(eq=False)
class RowBlock:
    """Rows that are written once, one after the other.

    `rows` is `[capacity, dimension]`, of which `used` are written, by whoever holds `writing`. A
    segment of them is told by where it starts and where it stops; none is empty.
    """

    rows: Float32Array
    used: int
    codes: RowCodes | None = None
    writing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def wants_codes(self) -> bool:
        """Whether many rows have none."""
        count = 0 if self.codes is None else self.codes.count
        return self.used - count >= max(LEAST_CODED_ROWS, CODED_GROWTH * count)

    def encode(self) -> None:
        """Makes codes of all rows; searches that run meanwhile go on with what they have."""
        self.codes = RowCodes.of(self.rows[: self.used])

    def similarities(self, query: Float32Array, starts: Rows, stops: Rows) -> Float32Array:
        """`[segments]`: the largest similarity over the rows of each."""
        lengths = stops - starts
        count, end = int(lengths.sum()), int(stops.max())
        if 2 * count > end:
            return _best(_products(query, self.rows[:end]), starts, stops)
        firsts = np.cumsum(lengths) - lengths
        places = np.arange(count) + np.repeat(starts - firsts, lengths)
        best: Float32Array = np.maximum.reduceat(_products(query, self.rows[places]), firsts)
        return best

    def rough_similarities(
        self, query: Float32Array, starts: Rows, stops: Rows, *, codes: RowCodes
    ) -> Float32Array:
        """The same, off by the error of the codes times the query's length at most."""
        end = int(stops.max())
        rest = _products(query, self.rows[min(codes.count, end) : end])
        return _best(np.concatenate([codes.products(query)[:end], rest]), starts, stops)


def make_block(parts: Sequence[Float32Array]) -> RowBlock:
    """A copy of these rows with room for more."""
    rows = np.concatenate(parts)
    capacity = int(len(rows) * GROWTH) + LEAST_SPARE_ROWS
    block = RowBlock(np.empty((capacity, rows.shape[1]), dtype=np.float32), used=len(rows))
    block.rows[: len(rows)] = rows
    return block


def _products(query: Float32Array, rows: Float32Array) -> Float32Array:
    products = np.empty(len(rows), dtype=np.float32)
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]  # its stubs do not have it
        faiss.swig_ptr(products),
        faiss.swig_ptr(query),
        faiss.swig_ptr(rows),
        rows.shape[1],
        len(rows),
    )
    return products


def _best(products: Float32Array, starts: Rows, stops: Rows) -> Float32Array:
    # One place more, since a segment may end where the rows do.
    products = np.append(products, np.float32(-np.inf))
    # Every other stretch lies between two segments.
    best: Float32Array = np.maximum.reduceat(products, np.stack([starts, stops], 1).ravel())[::2]
    return best


@dataclass(frozen=True, eq=False)
class KeyTable:
    """One line for each set of vectors; its keys are the rows from `starts` to before `stops`.

    What a search is narrowed by are numbers: comparing texts would take longer than the search.
    """

    vector_ids: npt.NDArray[np.object_]
    names: npt.NDArray[np.object_]
    name_codes: npt.NDArray[np.int32]
    workspaces: npt.NDArray[np.int32]
    backbones: npt.NDArray[np.int32]
    statuses: npt.NDArray[np.int32]
    thresholds: npt.NDArray[np.float64]
    text_thresholds: npt.NDArray[np.float64]
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
            coded(item.name for item in keys),
            coded(item.workspace for item in keys),
            coded(item.backbone_fingerprint for item in keys),
            coded(item.status for item in keys),
            np.array([item.threshold for item in keys], dtype=np.float64),
            np.array([item.text_threshold or 0.0 for item in keys], dtype=np.float64),
            stops - lengths,
            stops,
        )

    def __len__(self) -> int:
        return len(self.vector_ids)

    @property
    def num_rows(self) -> int:
        """Rows that belong to a line."""
        return int((self.stops - self.starts).sum())

    @cached_property
    def lines(self) -> dict[uuid.UUID, int]:
        """Which line is whose."""
        return {one: line for line, one in enumerate(self.vector_ids)}

    def without(self, gone: Collection[uuid.UUID]) -> Self:
        """The same without the lines of these."""
        kept = np.array([one not in gone for one in self.vector_ids], dtype=bool)
        return type(self)(*(column[kept] for column in self._columns()))

    def joined(self, other: Self) -> Self:
        """The lines of both."""
        pairs = zip(self._columns(), other._columns(), strict=True)
        return type(self)(*map(np.concatenate, pairs))

    def packed(self) -> Self:
        """The same when the rows lie one after the other from 0 on."""
        lengths = self.stops - self.starts
        stops = np.cumsum(lengths)
        return replace(self, starts=stops - lengths, stops=stops)

    def _columns(self) -> list[npt.NDArray[Any]]:
        return [getattr(self, one.name) for one in fields(self)]
