"""A weighted sum of stored vectors, stored as the next version of a name with its parents."""

import asyncio
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import JSON, IncompatibleBackboneError, InvalidInputError
from app.core.identifiers import sha256_hex
from app.core.vectors.card import MAX_SHOTS, VectorCard
from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.core.vectors.tensors import weighted_sum
from app.library.catalogue.comparison import check_distinct
from app.library.records import VectorRecord
from app.library.vector_rows import get_blob
from app.library.vectors import create_vector, find_same

METHOD = "m2iv-sum"


async def combine_vectors(
    session: AsyncSession,
    *,
    name: str,
    parts: Sequence[tuple[VectorRecord, float]],
    description: str = "",
    tags: Sequence[str] = (),
) -> tuple[VectorRecord, bool]:
    """The sum of stored vectors, and whether it is new; the same sum again changes nothing.

    Nothing was measured of it, so it is `unproven`, and `auto` does not find it.

    Raises:
        InvalidInputError: There are too few parts, one is given twice, or a weight is 0.
        IncompatibleBackboneError: The parts were made for different backbones.
        InvalidVectorFileError: The sum is too long for a vector file.
        CorruptDataError: A stored file has changed.
    """
    records = [record for record, _ in parts]
    weights = [weight for _, weight in parts]
    if len(parts) < 2:  # noqa: PLR2004 - a sum has two parts
        raise InvalidInputError(f"Wanted at least 2 vectors to combine, found {len(parts)}")
    check_distinct(records)
    if not all(weights):
        raise InvalidInputError("A weight of 0 leaves its vector out: name only what counts")
    require_one_backbone(records)
    blobs = [await get_blob(session, record.id) for record in records]
    card = VectorCard(
        status="unproven",
        shots=min(MAX_SHOTS, sum(record.shots for record in records)),
        seed=records[0].seed,
        hyper_parameters=settings_of(records, weights),
    )
    metadata = {
        "method": METHOD,
        "backbone": records[0].backbone.fingerprint,
        **card.to_metadata(),
    }
    blob = await asyncio.to_thread(_summed_file, blobs, weights, metadata=metadata)
    same = await find_same(session, name=name, sha256=sha256_hex(blob))
    if same is not None:
        return same, False
    made = await create_vector(
        session,
        name=name,
        blob=blob,
        backbone=records[0].backbone,
        method=METHOD,
        card=card.model_copy(update={"library_versions": records[0].library_versions}),
        parents=[record.id for record in records],
        description=description,
        tags=tags,
    )
    return made, True


def require_one_backbone(records: Sequence[VectorRecord]) -> str:
    """The fingerprint of the backbone that all vectors were made for.

    Raises:
        IncompatibleBackboneError: They were made for different ones.
    """
    found = sorted({record.backbone.fingerprint for record in records})
    if len(found) > 1:
        raise IncompatibleBackboneError(
            "Vectors of different backbones cannot be combined", details={"found": found}
        )
    return found[0]


def settings_of(records: Sequence[VectorRecord], weights: Sequence[float]) -> dict[str, JSON]:
    """What a combination says of its parts, in JSON values."""
    return {
        "parts": [
            {"vector": f"{record.name}@{record.version}", "sha256": record.sha256, "weight": weight}
            for record, weight in zip(records, weights, strict=True)
        ]
    }


def _summed_file(
    blobs: Sequence[bytes], weights: Sequence[float], *, metadata: Mapping[str, str]
) -> bytes:
    tensors = weighted_sum([decode_vector_file(blob)[0] for blob in blobs], weights=weights)
    if not tensors.has_effect:
        raise InvalidInputError("The vectors cancel each other: their sum adds nothing")
    return encode_vector_file(tensors, metadata=metadata)
