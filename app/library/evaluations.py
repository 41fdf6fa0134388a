"""Measurements of stored vectors beside their opponents."""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import JSON, InvalidInputError
from app.core.identifiers import VectorReference, new_id
from app.library.access.audit import write_audit
from app.library.database import FRESH
from app.library.records import EvaluationRecord, record_of
from app.library.tables import EvaluationRow
from app.library.vectors import get_vector


async def add_evaluation(
    session: AsyncSession,
    *,
    vector_id: uuid.UUID,
    dataset: str,
    split: str,
    scorer: str,
    items: int,
    accuracy: float,
    low: float,
    high: float,
    zero_shot: float | None = None,
    icl: float | None = None,
    knn_icl: float | None = None,
    details: Mapping[str, JSON] | None = None,
) -> EvaluationRecord:
    """Stores one measurement; accuracies are shares from 0 to 1.

    Raises:
        NotFoundError: There are no such vectors.
        InvalidInputError: There are no items, or a share is out of order or out of range.
    """
    shares = [low, accuracy, high]
    opponents = [share for share in (zero_shot, icl, knn_icl) if share is not None]
    if items < 1 or not 0 <= low <= accuracy <= high <= 1:
        raise InvalidInputError(f"Wanted 0 <= low <= accuracy <= high <= 1, found {shares}")
    if not all(0 <= share <= 1 for share in opponents):
        raise InvalidInputError(f"Wanted accuracies from 0 to 1, found {opponents}")
    await get_vector(session, VectorReference(id=vector_id))
    row = EvaluationRow(
        id=new_id(),
        vector_id=vector_id,
        dataset=dataset,
        split=split,
        scorer=scorer,
        items=items,
        accuracy=accuracy,
        low=low,
        high=high,
        zero_shot=zero_shot,
        icl=icl,
        knn_icl=knn_icl,
        details=dict(details or {}),
    )
    session.add(row)
    await session.flush()
    # What was stored is what a reader gets: numbers that are not finite have become null.
    await session.refresh(row)
    told: dict[str, JSON] = {"dataset": dataset, "split": split, "scorer": scorer}
    await write_audit(
        session,
        action="evaluation.create",
        subject=str(vector_id),
        details={**told, "accuracy": accuracy},
    )
    return record_of(EvaluationRecord, row)


async def list_evaluations(session: AsyncSession, vector_id: uuid.UUID) -> list[EvaluationRecord]:
    """All measurements of one set of vectors, newest first."""
    query = (
        select(EvaluationRow)
        .where(EvaluationRow.vector_id == vector_id)
        .order_by(EvaluationRow.id.desc())
    )
    return [
        record_of(EvaluationRecord, row)
        for row in await session.scalars(query, execution_options=FRESH)
    ]


async def held_out_gains(
    session: AsyncSession, vector_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, float]:
    """Accuracy above zero-shot by each one's newest measurement on the data of its first.

    Measurements on other data say how far the vectors reach, not how good they are at their task.
    """
    query = (
        select(
            EvaluationRow.vector_id,
            EvaluationRow.dataset,
            (EvaluationRow.accuracy - EvaluationRow.zero_shot).label("gain"),
        )
        .where(EvaluationRow.vector_id.in_(vector_ids), EvaluationRow.zero_shot.is_not(None))
        .order_by(EvaluationRow.id)
    )
    # Ids grow with time, so the newest comes last.
    found = (await session.execute(query)).all()
    own = {row.vector_id: row.dataset for row in reversed(found)}
    return {row.vector_id: float(row.gain) for row in found if row.dataset == own[row.vector_id]}
