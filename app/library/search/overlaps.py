"""Tasks that no key can tell apart: the same pictures and questions, other answers perhaps."""

import uuid
from collections.abc import Collection
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.library.search.index import MAX_ACCEPTED, Snapshot
from app.library.search.parts import cannot_tell_apart
from app.library.tables import KeyRow, VectorRow
from app.library.task_keys.epochs import find_space
from app.library.task_keys.keys import load_keys

_VECTORS_AT_ONCE: Final = 256
_ROWS_ASKED: Final = 8


async def find_overlaps(session: AsyncSession, *, vector_id: uuid.UUID, space: str) -> list[str]:
    """The names, in order, of other vectors whose task looks the same as that of these.

    `auto` abstains between them unless one is preferred. Retired vectors do not count, nor do
    other versions of the name. Empty for vectors without keys in the space.
    """
    state = await find_space(session, space)
    own = await load_keys(session, space, vector_ids=[vector_id])
    if state is None or not own:
        return []
    query = select(VectorRow.id).where(
        VectorRow.id.in_(select(KeyRow.vector_id).where(KeyRow.space == space)),
        VectorRow.backbone_fingerprint == own[0].backbone_fingerprint,
        VectorRow.name != own[0].name,
        VectorRow.status != "retired",
        VectorRow.deleted.is_(None),
    )
    found = set()
    ids = (await session.scalars(query)).all()
    for start in range(0, len(ids), _VECTORS_AT_ONCE):
        some = ids[start : start + _VECTORS_AT_ONCE]
        for other in await load_keys(session, space, vector_ids=some):
            if cannot_tell_apart(own[0], other, image_width=state.image_width):
                found.add(other.name)
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
