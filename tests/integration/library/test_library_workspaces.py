"""No statement of the library sees or changes what lies in another workspace."""

import uuid

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import aliased

from app.core.errors import InvalidInputError, NotFoundError
from app.library.access.access_keys import create_access_key, list_access_keys, revoke_access_key
from app.library.access.audit import list_audit
from app.library.aliases import list_aliases, set_alias
from app.library.catalogue.filters import list_vectors
from app.library.datasets import delete_dataset, get_dataset, list_datasets
from app.library.records import VectorRecord
from app.library.tables import AliasRow, DatasetRow, JobRow, VectorRow
from app.library.training.attempts import claim_job, fail_job
from app.library.training.jobs import get_job, list_jobs, request_cancel
from app.library.vectors import delete_vector, find_same, get_vector, update_vector
from app.library.workspaces import in_all_workspaces, in_workspace
from tests.fakes.library import store, store_dataset, store_job

pytestmark = pytest.mark.anyio

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def north(sessions: Sessions) -> Sessions:
    return in_workspace(sessions, "north")


@pytest.fixture
def south(sessions: Sessions) -> Sessions:
    return in_workspace(sessions, "south")


async def test_equal_names_are_different_things(north: Sessions, south: Sessions) -> None:
    made: list[VectorRecord] = []
    for sessions in (north, south, north):
        async with sessions.begin() as session:
            made.append(await store(session, "gears", seed=len(made)))
    assert [record.version for record in made] == [1, 1, 2]
    for sessions, wanted in ((north, made[2]), (south, made[1])):
        async with sessions.begin() as session:
            assert (await get_vector(session, "gears")).id == wanted.id
            page = await list_vectors(session)
            assert all(record.id != made[1].id for record in page.items) == (wanted is made[2])
            assert [alias.version for alias in await list_aliases(session, "gears")] == [
                wanted.version
            ]


async def test_equal_content_is_stored_for_each(north: Sessions, south: Sessions) -> None:
    ids = []
    for sessions in (north, south):
        async with sessions.begin() as session:
            ids.append((await store_dataset(session, "d")).id)
    async with north.begin() as session:
        await delete_dataset(session, "d")
    async with south.begin() as session:
        assert (await get_dataset(session, "d")).id == ids[1] != ids[0]


async def test_what_is_elsewhere_is_not_there(north: Sessions, south: Sessions) -> None:
    async with north.begin() as session:
        vector = await store(session, "gears")
        await set_alias(session, "gears", "prod", version=1)
        job = await store_job(session)
        key, _ = await create_access_key(session, name="x", scopes=["read"])
    async with south.begin() as session:
        for missing in (
            get_vector(session, vector.id),
            update_vector(session, vector.id, description="mine"),
            delete_vector(session, vector.id),
            set_alias(session, "gears", "prod", version=1),
            get_dataset(session, job.dataset_id),
            delete_dataset(session, job.dataset_id),
            get_job(session, job.id),
            request_cancel(session, job.id),
            claim_job(session, job.id),
            revoke_access_key(session, key.id),
        ):
            with pytest.raises(NotFoundError):
                await missing
        assert await find_same(session, name="gears", sha256=vector.sha256) is None
        for page in (
            await list_vectors(session),
            await list_datasets(session),
            await list_jobs(session),
        ):
            assert page.items == ()
        assert await list_audit(session) == []
        assert await list_access_keys(session) == []
        assert await list_aliases(session, "gears") == []
    async with north.begin() as session:
        assert (await get_vector(session, "gears@prod")).id == vector.id
        assert (await get_job(session, job.id)).state == "queued"


async def test_every_kind_of_statement_is_narrowed(north: Sessions, south: Sessions) -> None:
    async with north.begin() as session:
        vector = await store(session, "gears")
        await store_job(session)
    other = aliased(VectorRow)
    async with south.begin() as session:
        for query in (
            select(VectorRow),
            select(VectorRow.id, VectorRow.name),
            select(other),
            select(AliasRow).join(VectorRow, VectorRow.id == AliasRow.vector_id),
            select(JobRow.id).where(JobRow.dataset_id.in_(select(DatasetRow.id))),
            select(func.max(VectorRow.version)).having(func.count() > 0),
            select(VectorRow.id).with_for_update(),
        ):
            assert (await session.execute(query)).all() == [], query
        counted = select(func.count()).select_from(VectorRow)
        within = select(select(VectorRow.id).limit(1).scalar_subquery())
        assert (await session.scalar(counted), await session.scalar(within)) == (0, None)
        assert await session.get(VectorRow, vector.id) is None
        await session.execute(update(VectorRow).values(description="mine"))
        await session.execute(delete(AliasRow))
    async with north.begin() as session:
        found = await get_vector(session, "gears")
        assert (found.description, found.aliases) == ("", ("latest",))


async def test_a_job_ends_in_the_trail_of_its_own_workspace(
    sessions: Sessions, north: Sessions, south: Sessions
) -> None:
    async with north.begin() as session:
        job = await store_job(session)
    async with in_all_workspaces(sessions).begin() as session:
        claimed, token = await claim_job(session, job.id)
        assert claimed.workspace == "north"
        await fail_job(session, job.id, token, code="error", message="no")
    async with north.begin() as session:
        deeds = await list_audit(session, subject=str(job.id))
        assert [deed.action for deed in deeds] == ["job.create", "job.failed"]
    async with south.begin() as session:
        assert await list_audit(session) == []


async def test_whoever_sees_all_stores_nothing_without_saying_where(sessions: Sessions) -> None:
    async with in_all_workspaces(sessions)() as session:
        with pytest.raises(RuntimeError, match="in which workspace"):
            await store(session, "gears")


async def test_a_row_without_a_workspace_is_refused(session: AsyncSession) -> None:
    session.add(DatasetRow(id=uuid.uuid4(), name="d", sha256="a" * 64))
    with pytest.raises(IntegrityError, match="workspace"):
        await session.flush()


@pytest.mark.parametrize("workspace", ["", "Upper", "a/b", "..", "x" * 101])
async def test_a_workspace_has_a_name_of_the_usual_form(sessions: Sessions, workspace: str) -> None:
    async with in_workspace(sessions, workspace)() as session:
        with pytest.raises(InvalidInputError, match="workspace"):
            await create_access_key(session, name="x", scopes=["read"])
