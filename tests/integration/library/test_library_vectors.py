import asyncio
import random
import uuid
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import (
    ConflictError,
    CorruptDataError,
    IncompatibleBackboneError,
    InvalidInputError,
    InvalidVectorFileError,
    NotFoundError,
)
from app.core.identifiers import sha256_hex
from app.library.aliases import delete_alias, list_aliases, set_alias
from app.library.catalogue.filters import VectorFilters, list_vectors
from app.library.records import VectorRecord
from app.library.vector_rows import get_blob, get_blob_by_sha256
from app.library.vectors import (
    delete_vector,
    find_same,
    get_vector,
    update_vector,
)
from tests.fakes.library import store
from tests.fakes.vectors import FINGERPRINT, make_description, make_vector_file

pytestmark = pytest.mark.anyio


Sessions = async_sessionmaker[AsyncSession]


async def find(session: AsyncSession, text: str) -> VectorRecord:
    return await get_vector(session, text)


async def test_what_is_stored_comes_back(sessions: Sessions) -> None:
    blob = make_vector_file(5)
    async with sessions() as session:
        stored = await store(session, blob=blob, tags=["b", "a"], description="text")
        await session.commit()
    async with sessions() as session:
        found = await find(session, "task")
        assert found == stored
        assert await get_blob(session, found.id) == blob
        assert await get_blob_by_sha256(session, found.sha256) == blob
    assert (found.version, found.sha256, found.size_bytes) == (1, sha256_hex(blob), len(blob))
    assert (found.tags, found.aliases, found.status) == (("a", "b"), ("latest",), "ready")
    assert found.backbone == make_description()
    assert len(found.norms["attention"]) == 3
    assert found.hyper_parameters == {"epochs": 3}


async def test_nothing_is_there_without_a_commit(sessions: Sessions) -> None:
    async with sessions() as session:
        await store(session)
    async with sessions() as session:
        with pytest.raises(NotFoundError):
            await find(session, "task")
        assert (await list_vectors(session)).items == ()


async def test_creates_of_one_name_at_once_get_versions_without_gaps(sessions: Sessions) -> None:
    async def create(seed: int) -> int:
        async with sessions() as session:
            record = await store(session, seed=seed)
            await asyncio.sleep(0.01)
            await session.commit()
            return record.version

    versions = await asyncio.gather(*(create(seed) for seed in range(8)))
    assert sorted(versions) == list(range(1, 9))
    async with sessions() as session:
        assert (await find(session, "task")).version == 8


async def test_a_rolled_back_create_leaves_no_gap(sessions: Sessions) -> None:
    async with sessions() as session:
        await store(session)
        await session.rollback()
        assert (await store(session)).version == 1


async def test_each_kind_of_reference_finds_its_version(session: AsyncSession) -> None:
    first, second = await store(session, seed=1), await store(session, seed=2)
    await set_alias(session, "task", "prod", version=1)
    assert (await find(session, str(first.id))).version == 1
    assert (await find(session, "task@1")).aliases == ("prod",)
    assert (await find(session, "task@prod")).id == first.id
    assert (await find(session, "task")).id == (await find(session, "task@latest")).id == second.id
    for missing in ("other", "task@3", "task@beta", str(uuid.uuid4())):
        with pytest.raises(NotFoundError):
            await find(session, missing)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": "Bad Name"}, InvalidInputError),
        ({"tags": [""]}, InvalidInputError),
        ({"description": "\0"}, InvalidInputError),
        ({"blob": b"not a file"}, InvalidVectorFileError),
        (
            {"blob": make_vector_file(backbone=make_description(num_layers=2))},
            InvalidVectorFileError,
        ),
        (
            {"blob": make_vector_file(backbone=make_description("cd" * 32))},
            IncompatibleBackboneError,
        ),
    ],
)
async def test_what_cannot_be_right_is_not_stored(
    session: AsyncSession, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store(session, **{"backbone": make_description(), **fields})
    assert (await list_vectors(session)).items == ()


async def test_pages_hold_every_vector_once_newest_first(session: AsyncSession) -> None:
    stored = [await store(session, f"task-{number}") for number in range(7)]
    found: list[VectorRecord] = []
    cursor = None
    for size in (3, 3, 1):
        page = await list_vectors(session, limit=3, cursor=cursor)
        assert len(page.items) == size
        found += page.items
        cursor = page.next_cursor
    assert cursor is None
    assert found == stored[::-1]


async def test_filters_narrow_a_list(session: AsyncSession) -> None:
    other = make_description("cd" * 32)
    a = await store(session, "a", tags=["color"])
    b = await store(session, "b", backbone=other, status="collapsed")

    async def ids(**filters: Any) -> list[uuid.UUID]:  # noqa: ANN401 - filters of any kind
        found = await list_vectors(session, VectorFilters(**filters))
        return [record.id for record in found.items]

    assert (
        await ids(name="a")
        == await ids(tags=("color",))
        == await ids(backbone=FINGERPRINT)
        == [a.id]
    )
    assert await ids(status="collapsed") == await ids(backbone="cd" * 32) == [b.id]
    assert await ids(name="a", status="collapsed") == []


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": 201}, {"cursor": "x"}, {"filters": VectorFilters(status="?")}]
)
async def test_a_malformed_question_is_refused(
    session: AsyncSession, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError):
        await list_vectors(session, **wrong)


async def test_only_text_tags_and_status_change(session: AsyncSession) -> None:
    stored = await store(session)
    found = await update_vector(session, stored.id, description="new", tags=["x"], status="retired")
    assert (found.description, found.tags, found.status) == ("new", ("x",), "retired")
    assert (found.sha256, found.version, found.created) == (stored.sha256, 1, stored.created)
    assert await update_vector(session, stored.id) == found
    with pytest.raises(NotFoundError):
        await update_vector(session, uuid.uuid4(), description="x")
    with pytest.raises(InvalidInputError):
        await update_vector(session, stored.id, status="unknown")  # type: ignore[arg-type]


async def test_a_deleted_version_is_gone_but_its_bytes_stay(session: AsyncSession) -> None:
    first, second = await store(session, seed=1), await store(session, seed=2)
    await delete_vector(session, second.id)
    assert (await find(session, "task")).id == first.id
    assert [record.id for record in (await list_vectors(session)).items] == [first.id]
    for missing in ("task@2", str(second.id)):
        with pytest.raises(NotFoundError):
            await find(session, missing)
    assert await get_blob_by_sha256(session, second.sha256) == make_vector_file(2)
    assert (await store(session, seed=3)).version == 3
    with pytest.raises(NotFoundError):
        await delete_vector(session, second.id)


async def test_deleting_the_only_version_frees_the_latest_alias(session: AsyncSession) -> None:
    stored = await store(session)
    await delete_vector(session, stored.id)
    assert await list_aliases(session, "task") == []
    with pytest.raises(NotFoundError):
        await find(session, "task")
    assert (await store(session)).version == 2


async def test_a_version_with_an_alias_is_not_deleted(session: AsyncSession) -> None:
    stored = await store(session)
    await set_alias(session, "task", "prod", version=1)
    with pytest.raises(ConflictError, match="prod"):
        await delete_vector(session, stored.id)
    await delete_alias(session, "task", "prod")
    await delete_vector(session, stored.id)


async def test_the_same_file_is_looked_for_under_its_name_alone(session: AsyncSession) -> None:
    first, second = await store(session, "a"), await store(session, "b")
    assert first.sha256 == second.sha256

    async def same(name: str, sha256: str = first.sha256) -> str | None:
        found = await find_same(session, name=name, sha256=sha256)
        return None if found is None else f"{found.name}@{found.version}"

    assert (await same("a"), await same("b"), await same("c")) == ("a@1", "b@1", None)
    await store(session, "a", seed=1)
    assert await same("a") == "a@1"
    await store(session, "a")
    assert await same("a") == "a@3"
    assert await same("a", "0" * 64) is None
    await delete_vector(session, second.id)
    assert await same("b") is None
    assert (await store(session, "c")).version == 1


async def test_no_flipped_bit_of_a_stored_file_is_served(session: AsyncSession) -> None:
    stored = await store(session)
    flip = text("UPDATE vectors SET blob = set_bit(blob, :bit, 1 - get_bit(blob, :bit))")
    last = 8 * stored.size_bytes - 1
    drawn = random.Random(0).sample(range(1, last), 998)  # noqa: S311 - a draw, no secret
    for bit in (0, *drawn, last):
        await session.execute(flip, {"bit": bit})
        with pytest.raises(CorruptDataError):
            await get_blob(session, stored.id)
        await session.execute(flip, {"bit": bit})
    await session.execute(flip, {"bit": last})
    with pytest.raises(CorruptDataError):
        await get_blob_by_sha256(session, stored.sha256)
    await session.execute(flip, {"bit": last})
    assert await get_blob(session, stored.id) == make_vector_file()


async def test_a_missing_blob_is_not_found(session: AsyncSession) -> None:
    with pytest.raises(NotFoundError):
        await get_blob(session, uuid.uuid4())
    with pytest.raises(NotFoundError):
        await get_blob_by_sha256(session, "0" * 64)
