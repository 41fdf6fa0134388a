"""The file of stored vectors as they are known now: with what was measured since it was stored."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.vector_card import EvaluationCard, VectorCard, read_card
from app.core.vector_file import decode_vector_file, encode_vector_file
from app.library.evaluations import list_evaluations
from app.library.records import EvaluationRecord, VectorRecord
from app.library.vector_rows import get_blob

MAX_EVALUATIONS: Final = 100


async def load_file(
    session: AsyncSession, record: VectorRecord
) -> tuple[bytes, tuple[EvaluationRecord, ...]]:
    """The stored file and all that was measured, oldest first.

    Raises:
        CorruptDataError: The bytes have changed since they were stored.
    """
    measured = await list_evaluations(session, record.id)
    return await get_blob(session, record.id), tuple(reversed(measured[:MAX_EVALUATIONS]))


def current_file(
    blob: bytes, *, record: VectorRecord, measured: Sequence[EvaluationRecord]
) -> bytes:
    """The stored file, byte for byte unless something was measured or decided since.

    What was measured comes oldest first.
    """
    tensors, metadata = decode_vector_file(blob)
    card = read_card(metadata)
    if card is None and not measured:
        return blob
    stored = card or VectorCard(
        status="ready", shots=record.shots, seed=record.seed, dataset_sha256=record.dataset_sha256
    )
    # Retired vectors are out of use here, which says nothing of them elsewhere.
    status = stored.status if record.status == "retired" else record.status
    now = stored.model_copy(
        update={
            "status": status,
            "evaluations": tuple(
                EvaluationCard.model_validate(one, from_attributes=True) for one in measured
            ),
        }
    )
    if now == card:
        return blob
    return encode_vector_file(tensors, metadata={**metadata, **now.to_metadata()})
