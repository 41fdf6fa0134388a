"""Which labelled items stored vectors were not trained on, so that those may measure them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from app.core.errors import NotFoundError
from app.library.catalogue.lineage import find_sources
from app.library.database import Sessions
from app.library.datasets import find_by_sha256
from app.library.records import DatasetRecord
from app.method.backbone.examples import Example
from app.method.backbone.pictures import shown_digest

Load: TypeAlias = Callable[[DatasetRecord, str | None], Awaitable[Sequence[Example]]]
"""Reads a part of a data set."""
Store: TypeAlias = Callable[..., Awaitable[object]]
"""Puts a result where it belongs with its job's success, given a session, `token` and `result`.

It raises ConflictError where the job is no longer this worker's.
"""


async def leave_out_seen(
    items: Sequence[Example], vector_ids: Sequence[uuid.UUID], *, sessions: Sessions, load: Load
) -> tuple[tuple[Example, ...], dict[str, Any]]:
    """The items without those whose pictures are in what the vectors learnt from, and a report.

    What the vectors were combined from counts as well. The report has how many items are
    `left_out`, and vectors of which nobody knows any more what they learnt from as `unchecked`.
    """
    async with sessions() as session:
        sources = await find_sources(session, vector_ids)
        found = {
            digest: await find_by_sha256(session, digest)
            for digest in {source.dataset_sha256 for source in sources}
            if digest is not None
        }
    seen: set[str] = set()
    unchecked: list[str] = []
    for source in sources:
        known = None if source.dataset_sha256 is None else found[source.dataset_sha256]
        if known is None:
            unchecked.append(source.vector)
            continue
        # Which part another library trained on is not known here.
        is_known_here = source.job_id is not None or not known.splits
        try:
            for split in [source.split] if is_known_here else known.splits:
                seen.update(await asyncio.to_thread(_shown, await load(known, split)))
        except NotFoundError:
            # Deleted since it was looked up.
            unchecked.append(source.vector)
    shown = await asyncio.to_thread(_shown, items)
    unseen = tuple(item for item, one in zip(items, shown, strict=True) if one not in seen)
    return unseen, {"left_out": len(items) - len(unseen), "unchecked": unchecked}


def _shown(items: Sequence[Example]) -> list[str]:
    # Stored digests of pixels may be missing on one side, where an older version stored it.
    return [item.question if item.image is None else shown_digest(item.image) for item in items]
