"""What an index knows of each set of vectors, a line each."""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from app.library.search.rows import Rows
from app.library.task_keys import VectorKeys


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
