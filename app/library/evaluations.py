"""Measurements of stored vectors beside their opponents."""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import JSON, InvalidInputError
from app.core.identifiers import new_id
from app.core.vectors.card import EvaluationCard
from app.library.access.audit import write_audit
from app.library.records import EvaluationRecord, record_of
from app.library.tables import EvaluationRow
from app.library.vectors import get_vector


async def add_evaluation(
    session: AsyncSession,
    *,
    vector_id: uuid.UUID,
    measured: EvaluationCard,
    details: Mapping[str, JSON] | None = None,
) -> EvaluationRecord:
    """Stores one measurement.

    Raises:
        NotFoundError: There are no such vectors.
        InvalidInputError: The accuracy is outside of its interval.
    """
    if not measured.low <= measured.accuracy <= measured.high:
        shares = [measured.low, measured.accuracy, measured.high]
        raise InvalidInputError(f"Wanted 0 <= low <= accuracy <= high <= 1, found {shares}")
    await get_vector(session, vector_id)
    row = EvaluationRow(
        id=new_id(),
        vector_id=vector_id,
        details=dict(details or {}),
        **measured.model_dump(),
    )
    session.add(row)
    await session.flush()
    # What was stored is what a reader gets: numbers that are not finite have become null.
    await session.refresh(row)
    facts = measured.model_dump(include={"dataset", "split", "scorer", "accuracy"})
    await write_audit(session, action="evaluation.create", subject=str(vector_id), details=facts)
    return record_of(EvaluationRecord, row)


async def list_evaluations(session: AsyncSession, vector_id: uuid.UUID) -> list[EvaluationRecord]:
    """All measurements of one set of vectors, newest first."""
    query = (
        select(EvaluationRow)
        .where(EvaluationRow.vector_id == vector_id)
        .order_by(EvaluationRow.id.desc())
    )
    return [record_of(EvaluationRecord, row) for row in await session.scalars(query)]


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
