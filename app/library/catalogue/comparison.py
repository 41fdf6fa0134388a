"""Vectors beside each other: what was measured of each on equal terms, and how alike they are."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import InvalidInputError
from app.core.vectors.file import decode_vector_file
from app.library.evaluations import list_evaluations
from app.library.records import EvaluationRecord, VectorRecord
from app.library.vector_rows import get_blob


@dataclass(frozen=True, kw_only=True)
class VectorComparison:
    """What several vectors did on the same items.

    `results` has the newest measurement of each vector, in their order, or None; `best` is the
    position of the highest accuracy, and it is clear where its interval lies above those of all
    others that were measured.
    """

    dataset: str
    split: str
    scorer: str
    results: tuple[EvaluationRecord | None, ...]
    best: int
    is_clear: bool


async def compare_measurements(
    session: AsyncSession, vector_ids: Sequence[uuid.UUID]
) -> list[VectorComparison]:
    """One comparison for each data set, split and scorer that any of the vectors was measured on.

    Those with the most vectors come first.
    """
    found: dict[tuple[str, str, str], dict[int, EvaluationRecord]] = {}
    for position, vector_id in enumerate(vector_ids):
        for measured in await list_evaluations(session, vector_id):
            terms = (measured.dataset, measured.split, measured.scorer)
            # The newest comes first.
            found.setdefault(terms, {}).setdefault(position, measured)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [_comparison(terms, results, len(vector_ids)) for terms, results in ordered]


def _comparison(
    terms: tuple[str, str, str], results: dict[int, EvaluationRecord], num_vectors: int
) -> VectorComparison:
    best = max(results, key=lambda position: (results[position].accuracy, -position))
    others = [result for position, result in results.items() if position != best]
    dataset, split, scorer = terms
    return VectorComparison(
        dataset=dataset,
        split=split,
        scorer=scorer,
        results=tuple(results.get(position) for position in range(num_vectors)),
        best=best,
        is_clear=bool(others) and all(other.high < results[best].low for other in others),
    )


async def similarities(
    session: AsyncSession, records: Sequence[VectorRecord]
) -> list[list[float | None]]:
    """Cosines between the shifts of all sites, `[vectors, vectors]`.

    None where two were made for different backbones, or one of them has no effect.

    Raises:
        CorruptDataError: A stored file has changed.
    """
    directions = []
    for record in records:
        blob = await get_blob(session, record.id)
        directions.append(await asyncio.to_thread(_direction, blob))
    return [
        [
            _cosine(one, other)
            if records[i].backbone.fingerprint == records[k].backbone.fingerprint
            else None
            for k, other in enumerate(directions)
        ]
        for i, one in enumerate(directions)
    ]


def _direction(blob: bytes) -> npt.NDArray[np.float64]:
    shift = decode_vector_file(blob)[0].shift().astype(np.float64).ravel()
    length = float(np.linalg.norm(shift))
    return shift / length if length else shift


def _cosine(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float | None:
    if not one.any() or not other.any():
        return None
    return float(np.clip(one @ other, -1, 1))


def check_distinct(records: Sequence[VectorRecord]) -> None:
    """Returns when no vector is given twice.

    Raises:
        InvalidInputError: One is.
    """
    names = [f"{record.name}@{record.version}" for record in records]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(f"Given twice: {', '.join(twice)}")
