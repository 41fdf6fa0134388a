import asyncio
import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import ConflictError, InvalidInputError, NotFoundError
from app.core.identifiers import sha256_hex
from app.library.datasets import create_dataset, delete_dataset, get_dataset, list_datasets
from app.library.records import DatasetRecord
from tests.fakes.library import some_id, until_somebody_waits

pytestmark = pytest.mark.anyio
Sessions = async_sessionmaker[AsyncSession]


async def create(session: AsyncSession, name: str, content: bytes = b"x") -> DatasetRecord:
    digest = sha256_hex(content)
    return await create_dataset(
        session,
        name=name,
        sha256=digest,
        size_bytes=len(content),
        num_items=3,
        num_images=2,
        storage_key=f"datasets/{digest}.parquet",
        description="about",
    )


async def test_a_data_set_is_found_by_id_and_name(session: AsyncSession) -> None:
    made = await create(session, "easy-vqa")
    assert await get_dataset(session, made.id) == made
    assert await get_dataset(session, str(made.id)) == made
    assert await get_dataset(session, "easy-vqa") == made
    assert (made.num_items, made.num_images) == (3, 2)


async def test_a_name_that_is_a_digest_is_a_name(session: AsyncSession) -> None:
    for name in ("d41d8cd98f00b204e9800998ecf8427e", "2026-0102-0304-0506-0708-0900-0a0b-0c0d"):
        made = await create(session, name, name.encode())
        assert await get_dataset(session, name) == made
        assert await get_dataset(session, str(made.id).upper()) == made


async def test_equal_content_is_one_data_set_with_each_name(session: AsyncSession) -> None:
    first, second = await create(session, "a"), await create(session, "b")
    assert first.id == second.id
    assert (first.name, second.name) == ("a", "b")
    assert (await get_dataset(session, "b")).id == first.id
    assert (await get_dataset(session, "b")).name == "b"
    assert len((await list_datasets(session)).items) == 1


async def test_a_name_given_again_moves(session: AsyncSession) -> None:
    first, second = await create(session, "a", b"1"), await create(session, "a", b"2")
    assert first.id != second.id
    assert (await get_dataset(session, "a")).id == second.id
    assert (await get_dataset(session, first.id)).sha256 == first.sha256


async def test_a_data_set_is_listed_by_what_finds_it(session: AsyncSession) -> None:
    unnamed, moved = await create(session, "a", b"1"), await create(session, "b", b"2")
    named, _ = [await create(session, name, b"3") for name in ("b", "later")]
    await create(session, "other", b"2")
    names = {one.id: one.name for one in (await list_datasets(session)).items}
    assert names == {unnamed.id: "a", moved.id: "other", named.id: "b"}
    await create(session, "a", b"3")
    for listed in (await list_datasets(session)).items:
        assert await get_dataset(session, listed.id) == listed
        assert await get_dataset(session, listed.name) == listed


async def test_uploads_of_one_content_at_once_make_one_data_set(sessions: Sessions) -> None:
    async def upload() -> uuid.UUID:
        async with sessions() as session:
            record = await create(session, "a")
            await session.commit()
            return record.id

    assert len(set(await asyncio.gather(*(upload() for _ in range(8))))) == 1


async def test_a_delete_by_a_name_that_moves_meanwhile_deletes_neither(sessions: Sessions) -> None:
    async with sessions() as session:
        first = await create(session, "a", b"1")
        await session.commit()

    async def delete() -> None:
        async with sessions.begin() as session:
            await delete_dataset(session, "a")

    async with sessions() as holder, sessions() as mover:
        # As a job does that is being queued.
        await holder.execute(text("SELECT id FROM datasets FOR KEY SHARE"))
        deleting = asyncio.create_task(delete())
        await until_somebody_waits(mover)
        second = await create(mover, "a", b"2")
        await mover.commit()
        await holder.rollback()
    with pytest.raises(ConflictError, match="just been given"):
        await deleting
    async with sessions() as session:
        for one in (first, second):
            assert (await get_dataset(session, one.id)).sha256 == one.sha256


async def test_what_does_not_exist_is_not_found(session: AsyncSession) -> None:
    for reference in (some_id(), str(some_id()), "nothing"):
        with pytest.raises(NotFoundError):
            await get_dataset(session, reference)
    with pytest.raises(InvalidInputError):
        await get_dataset(session, "Not A Name")
    with pytest.raises(InvalidInputError):
        await create(session, "Not A Name")


async def test_data_sets_are_listed_newest_first_in_pages(session: AsyncSession) -> None:
    made = [await create(session, f"set-{n}", str(n).encode()) for n in range(3)]
    page = await list_datasets(session, limit=2)
    assert [record.id for record in page.items] == [made[2].id, made[1].id]
    rest = await list_datasets(session, limit=2, cursor=page.next_cursor)
    assert [record.id for record in rest.items] == [made[0].id]
