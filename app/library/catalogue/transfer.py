"""Vector files on their way out and in, with all that is known of them.

What leaves has what was measured since it was stored; what comes becomes a version here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.backbones import BackboneDescription
from app.core.vectors.card import EvaluationCard, VectorCard, read_card
from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.library.evaluations import add_evaluation, list_evaluations
from app.library.records import EvaluationRecord, VectorRecord
from app.library.vector_rows import get_blob
from app.library.vectors import create_vector

MAX_EVALUATIONS: Final = 100
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


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


async def import_vector(
    session: AsyncSession,
    *,
    name: str,
    blob: bytes,
    metadata: Mapping[str, str],
    card: VectorCard | None,
    backbone: BackboneDescription,
    description: str = "",
    tags: Sequence[str] = (),
) -> VectorRecord:
    """The next version of a name, with the file's keys, measurements and provenance.

    Without a card the vectors are `unproven`, and `auto` never finds them.

    Raises:
        InvalidVectorFileError: The keys are for another backbone.
    """
    card = card or VectorCard(
        shots=_number(metadata.get("shots")), seed=_number(metadata.get("seed"))
    )
    versions = {"created_by": metadata["created_by"][:200], **card.library_versions}
    record = await create_vector(
        session,
        name=name,
        blob=blob,
        backbone=backbone,
        method=metadata["method"][:100],
        card=card.model_copy(update={"library_versions": versions}),
        description=description,
        tags=tags,
    )
    for measured in card.evaluations:
        await add_evaluation(session, vector_id=record.id, measured=measured)
    return record


def _number(text: str | None) -> int:
    """What an imported file says of itself is a hint, never a reason to refuse it."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else 0
