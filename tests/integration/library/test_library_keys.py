import asyncio

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import InvalidInputError, NotFoundError
from app.library.task_keys.epochs import changed_vectors, current_epochs, find_space
from app.library.task_keys.keys import Float32Array, add_keys, load_keys
from app.library.vectors import delete_vector
from tests.fakes.library import some_id, store
from tests.fakes.task_keys import NOTHING, SPACE, axis, put

pytestmark = pytest.mark.anyio
Sessions = async_sessionmaker[AsyncSession]


async def test_epochs_become_visible_in_order(sessions: Sessions) -> None:
    async with sessions() as session:
        vectors = [(await store(session, f"task-{number}")).id for number in range(6)]
        await session.commit()
    committed: list[int] = []

    async def write(number: int) -> None:
        async with sessions() as session:
            epoch = await add_keys(
                session,
                vector_id=vectors[number],
                space=SPACE,
                exemplars=axis(0)[None],
                threshold=0,
            )
            # Whoever would commit out of order has every chance to do so here.
            await asyncio.sleep(0.02 * (6 - number))
            await session.commit()
            committed.append(epoch)

    seen: list[int] = []

    async def watch() -> None:
        async with sessions() as session:
            while len(committed) < 6:
                epoch = (await current_epochs(session)).get(SPACE, 0)
                changed = await changed_vectors(session, SPACE, after=0, until=epoch)
                assert len(changed) == epoch
                seen.append(epoch)
                await session.rollback()
                await asyncio.sleep(0.005)

    await asyncio.gather(watch(), *(write(number) for number in range(6)))
    assert committed == [1, 2, 3, 4, 5, 6]
    assert seen == sorted(seen)


async def test_a_rolled_back_change_leaves_no_epoch(session: AsyncSession) -> None:
    await put(session, "a", axis(0))
    vectors = await store(session, "b")
    await add_keys(session, vector_id=vectors.id, space=SPACE, exemplars=axis(1)[None], threshold=0)
    await session.rollback()
    assert await find_space(session, SPACE) == (1, 4, None)
    assert len(await load_keys(session, SPACE)) == 1


async def test_keys_are_stored_as_unit_vectors(session: AsyncSession) -> None:
    vector_id = await put(session, "a", 7 * axis(0), exemplars=3 * np.eye(4, dtype=np.float32))
    (keys,) = await load_keys(session, SPACE)
    assert (keys.vector_id, keys.threshold) == (vector_id, 0.5)
    assert keys.embeddings.shape == (5, 4)
    assert np.allclose(keys.embeddings[0], axis(0))
    assert np.allclose(np.linalg.norm(keys.embeddings, axis=1), 1)
    assert await load_keys(session, SPACE, vector_ids=[some_id()]) == []


@pytest.mark.parametrize(
    ("exemplars", "threshold", "space"),
    [
        (NOTHING, 0.5, SPACE),
        (np.zeros((1, 4)), 0.5, SPACE),
        (np.full((1, 4), np.nan), 0.5, SPACE),
        (np.stack([axis(0), np.zeros(4)]), 0.5, SPACE),
        (np.ones((65, 4)), 0.5, SPACE),
        (np.ones((1, 5)), 0.5, SPACE),
        (np.ones((2, 2, 2)), 0.5, SPACE),
        (axis(0)[None], 1.5, SPACE),
        (axis(0)[None], float("nan"), SPACE),
        (axis(0)[None], 0.5, ""),
        (axis(0)[None], 0.5, "a\n"),
    ],
)
async def test_keys_out_of_bounds_are_refused(
    session: AsyncSession,
    *,
    exemplars: Float32Array,
    threshold: float,
    space: str,
) -> None:
    vector_id = await put(session, "a", axis(0))
    with pytest.raises(InvalidInputError):
        await add_keys(
            session,
            vector_id=vector_id,
            space=space,
            exemplars=exemplars,
            threshold=threshold,
        )


async def test_nothing_gets_keys_that_does_not_exist(session: AsyncSession) -> None:
    vector_id = await put(session, "a", axis(0))
    await delete_vector(session, vector_id)
    for missing in (vector_id, some_id()):
        with pytest.raises(NotFoundError):
            await add_keys(
                session,
                vector_id=missing,
                space=SPACE,
                exemplars=axis(0)[None],
                threshold=0,
            )
