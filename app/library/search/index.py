"""Nearest keys, exactly: immutable snapshots of one space.

A snapshot holds every key and everything that a search is narrowed by, so a search is one mask and
one pass over the keys. It never changes: an update makes a new one that shares the keys' memory
with the old, which goes on reading the part it knows. What 8-bit codes of the keys rule out is not
looked at, once there are codes.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Self, cast

import numpy as np
import numpy.typing as npt

from app.core.access import DEFAULT_WORKSPACE
from app.core.errors import InvalidInputError
from app.core.states import VectorStatus
from app.library.search.parts import (
    LEAD_REFUSALS,
    cannot_tell_apart,
    least_lead,
    nearest_of_each,
    parts_of,
)
from app.library.search.rows import KeyTable, RowBlock, Rows, make_block
from app.library.search.verdicts import Hit
from app.library.task_keys import Float32Array, FloatArray, VectorKeys, unit_rows

MAX_DEAD_SHARE: Final = 0.25
TIE: Final = 1e-6
MAX_ACCEPTED: Final = 64
MAX_LEADS: Final = 2**18
# Of fewer rows than this share the exact ones are read as fast as everybody's codes.
CODES_PAY: Final = 0.2


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All keys of one space as of one epoch.

    Every change up to `epoch` is in it. Of the `dimension` numbers of a key `image_width` belong to
    the picture, or None for keys of one part. A search passes over `num_rows` rows, live or not.
    """

    space: str
    epoch: int
    dimension: int
    image_width: int | None
    _block: RowBlock = field(repr=False)
    num_rows: int
    _table: KeyTable = field(repr=False)
    _codes: dict[str, int] = field(repr=False)
    _lead_refusals: float
    # Of one line over another, reckoned when it is first asked for.
    _leads: dict[tuple[int, int], float] = field(repr=False, default_factory=dict)

    @classmethod
    def build(
        cls,
        space: str,
        *,
        epoch: int,
        dimension: int,
        keys: Sequence[VectorKeys],
        image_width: int | None = None,
        lead_refusals: float = LEAD_REFUSALS,
    ) -> Self:
        """A snapshot of exactly these keys.

        `lead_refusals` is the share of a task's pictures that may lie nearer to another task whose
        pictures differ.
        """
        parts = [np.empty((0, dimension), dtype=np.float32), *(item.embeddings for item in keys)]
        block = make_block(parts)
        codes: dict[str, int] = {}
        table = KeyTable.of(keys, codes=codes, first_row=0)
        rows = block.used
        return cls(space, epoch, dimension, image_width, block, rows, table, codes, lead_refusals)

    @property
    def wants_codes(self) -> bool:
        """Whether searches would be faster if there were codes of the keys' rows."""
        return self._block.wants_codes

    def encode(self) -> None:
        """Makes these codes, for all snapshots that share the rows; nothing else changes."""
        self._block.encode()

    def update(
        self, *, epoch: int, changed: Collection[uuid.UUID], keys: Sequence[VectorKeys]
    ) -> "Snapshot":
        """The snapshot after some sets of vectors changed; this one stays as it is."""
        kept = self._table.without(changed)
        codes = dict(self._codes)
        table = kept.joined(KeyTable.of(keys, codes=codes, first_row=self.num_rows))
        fresh = [item.embeddings for item in keys]
        end = self.num_rows + sum(map(len, fresh))
        block = self._block
        with block.writing:
            # Rows beyond ours are those of another successor.
            has_room = block.used == self.num_rows and end <= len(block.rows)
            if has_room and table.num_rows >= (1 - MAX_DEAD_SHARE) * end:
                block.rows[self.num_rows : end] = np.concatenate([block.rows[:0], *fresh])
                block.used = end
            else:
                rows = block.rows
                old = [
                    rows[start:stop] for start, stop in zip(kept.starts, kept.stops, strict=True)
                ]
                block, table = make_block([rows[:0], *old, *fresh]), table.packed()
        return replace(
            self,
            epoch=epoch,
            _block=block,
            num_rows=block.used,
            _table=table,
            _codes=codes,
            _leads={},
        )

    def search(
        self,
        query: FloatArray,
        *,
        backbone_fingerprint: str,
        statuses: Collection[str],
        k: int,
        workspace: str = DEFAULT_WORKSPACE,
        among: Collection[uuid.UUID] | None = None,
    ) -> list[Hit]:
        """The `k` fitting sets of vectors nearest to the query, best first; exact.

        The score of a set of vectors is the largest cosine similarity over its keys. Those that
        accept the query come first, at most 64 of them; of equal ones the newer comes first.

        The query is `[dimension]`, of any length but zero; `among` are the only vectors, as if
        there were no others.

        Raises:
            InvalidInputError: The query is zero, not finite or of another dimension.
        """
        unit = unit_rows(np.atleast_2d(query))[0]
        if len(unit) != self.dimension:
            raise InvalidInputError(f"Wanted an embedding of {self.dimension}, found {len(unit)}")
        table, codes = self._table, self._codes
        wanted = [codes[status] for status in statuses if status in codes]
        is_made_for_it = table.backbones == codes.get(backbone_fingerprint, -1)
        is_of_it = table.workspaces == codes.get(workspace, -1)
        fitting = np.flatnonzero(is_of_it & is_made_for_it & np.isin(table.statuses, wanted))
        if among is not None:
            fitting = fitting[np.isin(fitting, [table.lines.get(one, -1) for one in among])]
        if not len(fitting):
            return []
        parts = parts_of(unit, image_width=self.image_width)
        fitting = self._undecided(fitting, parts, k=k)
        edges = table.starts[fitting], table.stops[fitting]
        cosines = {name: self._block.similarities(part, *edges) for name, part in parts.items()}
        limits = {name: self._limits(name, fitting) for name in parts}
        slacks = np.stack([cosines[name] - limits[name] for name in parts])
        is_accepted = slacks.min(0) >= 0
        similarities = np.stack(list(cosines.values())).astype(np.float64).mean(0)
        # Two trainings on the same data have the same keys, but for the last bits of a sum; then
        # the newer one is meant, and ids grow with time.
        steps = np.rint(similarities / TIE)
        passed = np.flatnonzero(is_accepted)
        passed = passed[np.argsort(-steps[passed], kind="stable")][:MAX_ACCEPTED]
        is_accepted = np.zeros(len(fitting), dtype=bool)
        is_accepted[passed] = True
        if "image" in cosines:
            is_accepted[passed] = self._have_lead(passed, cosines["image"], fitting)
        least = np.partition(steps, -k)[-k] if k < len(steps) else -np.inf
        ids = table.vector_ids[fitting]

        def rank(place: int) -> tuple[bool, float, int]:
            return not is_accepted[place], -steps[place], -ids[place].int

        places = sorted(np.flatnonzero((steps >= least) | is_accepted).tolist(), key=rank)
        weakest = slacks.argmin(0)
        names = list(parts)
        return [
            Hit(
                ids[place],
                table.names[fitting[place]],
                float(cosines[names[weakest[place]]][place]),
                float(limits[names[weakest[place]]][place]),
                float(similarities[place]),
                bool(is_accepted[place]),
            )
            for place in places[:k]
        ]

    def alike(
        self, one: uuid.UUID, others: Iterable[uuid.UUID], *, query: FloatArray
    ) -> set[uuid.UUID]:
        """Those of the others that stand for the same task, as far as such a query can show."""
        unit = unit_rows(np.atleast_2d(query))[0]
        parts = list(parts_of(unit, image_width=self.image_width))
        own, width = self.keys_of(one), self.image_width
        return {
            other
            for other in others
            if cannot_tell_apart(own, self.keys_of(other), image_width=width, parts=parts)
        }

    def __contains__(self, vector_id: uuid.UUID) -> bool:
        return vector_id in self._table.lines

    def keys_of(self, vector_id: uuid.UUID) -> VectorKeys:
        """The keys of one set of vectors, which must be here."""
        table = self._table
        line, texts = table.lines[vector_id], self._texts
        return VectorKeys(
            vector_id=vector_id,
            name=table.names[line],
            backbone_fingerprint=texts[int(table.backbones[line])],
            status=cast("VectorStatus", texts[int(table.statuses[line])]),
            embeddings=self._rows_of(line),
            threshold=float(table.thresholds[line]),
            text_threshold=None if self.image_width is None else float(table.text_thresholds[line]),
            workspace=texts[int(table.workspaces[line])],
        )

    @cached_property
    def _texts(self) -> list[str]:
        # Codes count up from 0.
        return list(self._codes)

    def _limits(self, part: str, lines: Rows) -> npt.NDArray[np.float64]:
        table = self._table
        return (table.text_thresholds if part == "text" else table.thresholds)[lines]

    def _undecided(self, fitting: Rows, parts: dict[str, Float32Array], *, k: int) -> Rows:
        """Those of the lines that may be among the `k` nearest, accept the query or be a rival.

        All of them when there are no codes to tell, or too few lines for codes to help.
        """
        codes, table = self._block.codes, self._table
        edges = table.starts[fitting], table.stops[fitting]
        is_small = (edges[1] - edges[0]).sum() < CODES_PAY * self.num_rows
        if codes is None or is_small or k >= len(fitting):
            return fitting
        rough = {
            name: self._block.rough_similarities(part, *edges, codes=codes)
            for name, part in parts.items()
        }
        doubt = {name: codes.error * float(np.linalg.norm(part)) for name, part in parts.items()}
        mean = np.stack(list(rough.values())).mean(0)
        least = np.partition(mean, -k)[-k] - 2 * (np.mean(list(doubt.values())) + TIE)
        may_accept = [rough[name] + doubt[name] >= self._limits(name, fitting) for name in parts]
        is_undecided = (mean >= least) | np.all(may_accept, axis=0)
        if "image" in parts:
            rivals = nearest_of_each(table.name_codes[fitting], rough["image"])
            is_undecided |= rough["image"] >= rough["image"][rivals[-1]] - 2 * doubt["image"]
        undecided: Rows = fitting[is_undecided]
        return undecided

    def _rows_of(self, line: int) -> Float32Array:
        return self._block.rows[self._table.starts[line] : self._table.stops[line]]

    def _have_lead(
        self, places: Rows, cosines: Float32Array, fitting: Rows
    ) -> npt.NDArray[np.bool_]:
        """Which of these places lead over the other names whose pictures differ from theirs."""
        codes = self._table.name_codes[fitting]
        rivals = nearest_of_each(codes, cosines) if len(places) else []
        return np.array(
            [
                all(
                    cosines[place] - cosines[rival]
                    >= self._least_lead(int(fitting[place]), int(fitting[rival]))
                    for rival in rivals
                    if codes[rival] != codes[place]
                )
                for place in places
            ],
            dtype=bool,
        )

    def _least_lead(self, line: int, rival: int) -> float:
        found = self._leads.get((line, rival))
        if found is None:
            if len(self._leads) >= MAX_LEADS:
                self._leads.clear()
            found = self._leads[line, rival] = least_lead(
                self._rows_of(line),
                self._rows_of(rival),
                image_width=self.image_width or 0,
                refusals=self._lead_refusals,
            )
        return found
