"""What is found while the library changes is what a plain scan finds."""

import asyncio

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.library.catalogue.filters import VectorFilters
from app.library.search import rows
from app.library.search.retrieval import Retriever
from app.library.task_keys import Float32Array
from app.library.vectors import delete_vector
from tests.fakes.task_keys import SPACE, axis, put
from tests.fakes.vectors import FINGERPRINT
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio
Sessions = async_sessionmaker[AsyncSession]


async def found(
    retriever: Retriever, query: Float32Array, *, k: int, filters: VectorFilters | None = None
) -> list[str]:
    result = await retriever.search(
        query, space=SPACE, backbone_fingerprint=FINGERPRINT, k=k, filters=filters
    )
    return [match.vector.name for match in result.matches]


async def test_searches_and_changes_at_once_agree_with_a_plain_scan(
    sessions: Sessions,
) -> None:
    retriever = Retriever(sessions, poll_seconds=0.05)
    await retriever.start()
    rng = np.random.default_rng(0)
    centroids: dict[str, Float32Array] = {}

    async def write(number: int) -> None:
        centroid = rng.standard_normal(4).astype(np.float32)
        async with sessions() as session:
            await put(session, f"task-{number}", centroid)
        centroids[f"task-{number}"] = centroid / np.linalg.norm(centroid)

    async def look() -> None:
        for _ in range(10):
            await found(retriever, rng.standard_normal(4).astype(np.float32), k=5)

    await asyncio.gather(*(write(number) for number in range(12)), look(), look())
    query = axis(0)
    wanted = sorted(centroids, key=lambda name: -float(centroids[name] @ query))
    assert await found(retriever, query, k=12) == wanted
    assert retriever.epoch(SPACE) == 12
    await retriever.stop()


async def test_one_with_codes_of_its_keys_and_one_without_agree_after_every_change(
    session: AsyncSession, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LEAST_CODED_ROWS", 80)
    rng = np.random.default_rng(0)
    stored = [
        await put(session, f"task-{number}", centroid, threshold=0.9)
        for number, centroid in enumerate(rng.standard_normal((80, 4)).astype(np.float32))
    ]
    coded, plain = (Retriever(sessions, poll_seconds=seconds) for seconds in (0.02, 3600.0))
    for one in (coded, plain):
        await one.start()
    await until(lambda: coded._snapshots[SPACE]._block.codes is not None)
    query = rng.standard_normal(4).astype(np.float32)

    async def both(filters: VectorFilters | None = None) -> tuple[list[str], list[str]]:
        return (
            await found(coded, query, k=10, filters=filters),
            await found(plain, query, k=10, filters=filters),
        )

    names, same = await both()
    assert names == same
    first, *others = names
    await delete_vector(session, stored[int(first.removeprefix("task-"))])
    await session.commit()
    names, same = await both()
    assert names == same
    assert names[: len(others)] == others
    await put(session, "new", query, threshold=0.9)
    names, same = await both()
    assert names == same
    assert names[:2] == ["new", others[0]]
    assert coded._snapshots[SPACE]._block.codes is not None
    assert plain._snapshots[SPACE]._block.codes is None
    assert await both(VectorFilters(name=others[3])) == ([others[3]], [others[3]])
    for one in (coded, plain):
        await one.stop()
