import asyncio
import uuid

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import InvalidInputError
from app.core.vectors.card import KeyCard, VectorCard
from app.library.database import read_one_moment
from app.library.search.retrieval import Retriever
from app.library.tables import IndexChangeRow
from app.library.task_keys import (
    Float32Array,
    add_keys,
    changed_vectors,
    current_epochs,
    get_space,
    load_keys,
    refresh_keys,
    remove_keys,
)
from app.library.vectors import create_vector, delete_vector
from app.library.workspaces import in_all_workspaces, in_workspace
from tests.fakes.library import some_id, store
from tests.fakes.task_keys import SPACE, axis, card_of, put
from tests.fakes.vectors import make_description, make_vector_file

pytestmark = pytest.mark.anyio
Sessions = async_sessionmaker[AsyncSession]


async def test_epochs_become_visible_in_order(sessions: Sessions) -> None:
    async with sessions() as session:
        vectors = [(await store(session, f"task-{number}")).id for number in range(6)]
        await session.commit()
    committed: list[int] = []

    async def write(number: int) -> None:
        async with sessions() as session:
            epoch = await add_keys(session, card_of([axis(0)]), vector_id=vectors[number])
            # Whoever would commit out of order has every chance to do so here.
            await asyncio.sleep(0.02 * (6 - number))
            await session.commit()
            committed.append(epoch)

    seen: list[int] = []

    async def watch() -> None:
        async with sessions() as session:
            while len(committed) < 6:
                await read_one_moment(session)
                epoch = (await current_epochs(session)).get(SPACE, 0)
                changed = await changed_vectors(session, SPACE, after=0)
                assert len(changed) == epoch
                seen.append(epoch)
                await session.rollback()
                await asyncio.sleep(0.005)

    await asyncio.gather(watch(), *(write(number) for number in range(6)))
    assert committed == [1, 2, 3, 4, 5, 6]
    assert seen == sorted(seen)


async def test_what_has_changed_is_kept_once_for_each_vector(session: AsyncSession) -> None:
    often, once = [await put(session, name, axis(0)) for name in ("a", "b")]
    for _ in range(3):
        await refresh_keys(session, vector_id=often)
    await remove_keys(session, vector_id=often)
    assert (await get_space(session, SPACE)).epoch == 6
    changes = {row.vector_id: row.epoch for row in await session.scalars(select(IndexChangeRow))}
    assert changes == {often: 6, once: 2}
    assert await changed_vectors(session, SPACE, after=1) == {often, once}
    assert await changed_vectors(session, SPACE, after=2) == {often}
    assert await changed_vectors(session, SPACE, after=6) == set()


async def test_a_rolled_back_change_leaves_no_epoch(session: AsyncSession) -> None:
    await put(session, "a", axis(0))
    vectors = await store(session, "b")
    await add_keys(session, card_of([axis(1)]), vector_id=vectors.id)
    await session.rollback()
    assert await get_space(session, SPACE) == (1, 4, None)
    assert len(await load_keys(session, SPACE)) == 1


async def test_keys_are_stored_as_unit_vectors(session: AsyncSession) -> None:
    vector_id = await put(session, "a", 7 * axis(0), exemplars=3 * np.eye(4, dtype=np.float32))
    (keys,) = await load_keys(session, SPACE)
    assert (keys.vector_id, keys.threshold) == (vector_id, 0.5)
    assert keys.embeddings.shape == (5, 4)
    assert np.allclose(keys.embeddings[0], axis(0))
    assert np.allclose(np.linalg.norm(keys.embeddings, axis=1), 1)
    assert await load_keys(session, SPACE, vector_ids=[some_id()]) == []


async def test_more_vectors_are_asked_for_than_a_statement_has_parameters(
    session: AsyncSession,
) -> None:
    vector_id = await put(session, "a", axis(0))
    others = [uuid.UUID(int=number) for number in range(70_000)]
    (keys,) = await load_keys(session, SPACE, vector_ids=[*others, vector_id])
    assert keys.vector_id == vector_id


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((0, 4)),
        np.zeros((1, 4)),
        np.full((1, 4), np.nan),
        np.stack([axis(0), np.zeros(4)]),
        np.ones((65, 4)),
        np.ones((1, 5)),
    ],
)
async def test_keys_out_of_bounds_are_refused(session: AsyncSession, rows: Float32Array) -> None:
    await put(session, "a", axis(0))
    vectors = await store(session, "b")
    key = KeyCard.of(rows, space=SPACE, threshold=0.5)
    with pytest.raises(InvalidInputError):
        await add_keys(session, key, vector_id=vectors.id)


async def stored(session: AsyncSession, name: str, *, width: int, is_trained: bool) -> uuid.UUID:
    """A vector with one key of so many numbers."""
    backbone = make_description()
    space = f"backbone-{backbone.fingerprint[:16]}-v3"
    record = await create_vector(
        session,
        name=name,
        blob=make_vector_file(width, backbone=backbone),
        backbone=backbone,
        card=VectorCard(
            key=KeyCard.of(np.eye(1, width, dtype=np.float32), space=space, threshold=0.5)
        ),
        job_id=some_id() if is_trained else None,
    )
    return record.id


async def found(retriever: Retriever, *, width: int) -> list[str]:
    fingerprint = make_description().fingerprint
    result = await retriever.search(
        np.eye(width)[0],
        space=f"backbone-{fingerprint[:16]}-v3",
        backbone_fingerprint=fingerprint,
        only_ready=False,
        workspace="south",
    )
    return [match.vector.name for match in result.matches]


async def test_an_imported_key_of_a_wrong_shape_is_in_no_trainings_way(sessions: Sessions) -> None:
    north, south = (in_workspace(sessions, name) for name in ("north", "south"))
    retriever = Retriever(in_all_workspaces(sessions))
    async with north.begin() as session:
        wrong = await stored(session, "wrong", width=3, is_trained=False)
    await retriever.start()
    async with south.begin() as session:
        await stored(session, "right", width=4, is_trained=True)
    await retriever._refresh()
    assert await found(retriever, width=4) == ["right"]
    async with north.begin() as session:
        await delete_vector(session, wrong)
    assert await found(retriever, width=4) == ["right"]
    await retriever.stop()


@pytest.mark.parametrize("is_trained", [True, False])
async def test_nothing_takes_the_place_of_a_trainings_keys(
    sessions: Sessions, *, is_trained: bool
) -> None:
    async with in_workspace(sessions, "north").begin() as session:
        await stored(session, "right", width=4, is_trained=True)
    async with in_workspace(sessions, "south")() as session:
        with pytest.raises(InvalidInputError, match="wants dimension 4"):
            await stored(session, "wrong", width=3, is_trained=is_trained)


async def test_a_space_without_keys_takes_any_shape(session: AsyncSession) -> None:
    wrong = await stored(session, "wrong", width=3, is_trained=False)
    with pytest.raises(InvalidInputError, match="wants dimension 3"):
        await stored(session, "right", width=4, is_trained=False)
    await delete_vector(session, wrong)
    await stored(session, "right", width=4, is_trained=False)
