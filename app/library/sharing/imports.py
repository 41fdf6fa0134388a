"""A vector file from elsewhere becomes a version here, with all that it says of itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.backbones import BackboneDescription
from app.core.vector_card import VectorCard
from app.library.evaluations import add_evaluation
from app.library.records import VectorRecord
from app.library.vectors import create_vector

_NUMBER: Final = re.compile(r"[0-9]{1,9}")


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
    told = card or VectorCard(
        shots=_number(metadata.get("shots")), seed=_number(metadata.get("seed"))
    )
    versions = {"created_by": metadata["created_by"][:200], **told.library_versions}
    record = await create_vector(
        session,
        name=name,
        blob=blob,
        backbone=backbone,
        method=metadata["method"][:100],
        card=told.model_copy(update={"library_versions": versions}),
        description=description,
        tags=tags,
    )
    for measured in told.evaluations:
        await add_evaluation(session, vector_id=record.id, measured=measured)
    return record


def _number(text: str | None) -> int:
    """What an imported file says of itself is a hint, never a reason to refuse it."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else 0
