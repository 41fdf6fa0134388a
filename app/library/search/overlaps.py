"""Tasks that no key can tell apart: the same pictures and questions, other answers perhaps."""

import asyncio
import uuid
from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.identifiers import new_id
from app.core.vectors.card import KeyCard
from app.library.search.index import MAX_ACCEPTED, Snapshot
from app.library.search.parts import cannot_tell_apart
from app.library.tables import KeyRow, VectorRow
from app.library.task_keys import VectorKeys, load_keys, unit_rows

_VECTORS_AT_ONCE: Final = 256
_ROWS_ASKED: Final = 8


async def find_overlaps(
    session: AsyncSession, key: KeyCard, *, name: str, backbone_fingerprint: str
) -> list[str]:
    """The names, in order, of stored vectors whose task looks the same as that of a key.

    `auto` abstains between them unless one is preferred. Retired vectors do not count, nor do
    versions of the key's own `name`.
    """
    own = VectorKeys(
        vector_id=new_id(),
        name=name,
        backbone_fingerprint=backbone_fingerprint,
        status="unproven",
        embeddings=unit_rows(key.matrix()),
        threshold=key.threshold,
        text_threshold=key.text_threshold,
    )
    query = select(VectorRow.id).where(
        VectorRow.id.in_(select(KeyRow.vector_id).where(KeyRow.space == key.space)),
        VectorRow.backbone_fingerprint == backbone_fingerprint,
        VectorRow.name != name,
        VectorRow.status != "retired",
        VectorRow.deleted.is_(None),
    )

    def alike(others: Sequence[VectorKeys]) -> set[str]:
        width = key.image_width
        return {one.name for one in others if cannot_tell_apart(own, one, image_width=width)}

    found: set[str] = set()
    ids = (await session.scalars(query)).all()
    for start in range(0, len(ids), _VECTORS_AT_ONCE):
        some = ids[start : start + _VECTORS_AT_ONCE]
        others = await load_keys(session, key.space, vector_ids=some)
        found |= await asyncio.to_thread(alike, others)
    return sorted(found)


def overlaps_in(
    snapshot: Snapshot, vector_id: uuid.UUID, *, statuses: Collection[str]
) -> list[str]:
    """The same as far as a snapshot knows, without reading every key; in any of these states."""
    if vector_id not in snapshot:
        return []
    own = snapshot.keys_of(vector_id)
    near = {}
    # What takes half of all rows for its own takes one of the first few.
    for row in own.embeddings[:_ROWS_ASKED]:
        hits = snapshot.search(
            row,
            backbone_fingerprint=own.backbone_fingerprint,
            workspace=own.workspace,
            statuses=statuses,
            k=MAX_ACCEPTED,
        )
        near.update({hit.vector_id: hit.name for hit in hits if hit.score >= hit.threshold})
    return sorted(
        {
            name
            for other, name in near.items()
            if name != own.name
            and cannot_tell_apart(own, snapshot.keys_of(other), image_width=snapshot.image_width)
        }
    )
