import asyncio
import uuid
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
)
from app.core.vectors.card import EvaluationCard
from app.library.access.audit import act_as, list_audit, write_audit
from app.library.aliases import delete_alias, list_aliases, set_alias
from app.library.database import run_transaction
from app.library.evaluations import add_evaluation, held_out_gains, list_evaluations
from app.library.vector_rows import get_backbone
from app.library.vectors import (
    delete_vector,
    update_vector,
)
from tests.fakes.library import store
from tests.fakes.vectors import FINGERPRINT, make_description

pytestmark = pytest.mark.anyio


Sessions = async_sessionmaker[AsyncSession]


def measured(**changed: Any) -> EvaluationCard:  # noqa: ANN401 - fields of any kind
    values = {"dataset": "d", "split": "test", "scorer": "exact", "items": 4, "accuracy": 0.5}
    return EvaluationCard.model_validate({**values, "low": 0.4, "high": 0.6, **changed})


async def test_an_alias_moves_only_from_where_it_was_expected(session: AsyncSession) -> None:
    await store(session, seed=1)
    await store(session, seed=2)
    made = await set_alias(session, "task", "prod", version=1, expected_version=0)
    assert (made.version, made.alias) == (1, "prod")
    for wrong in (0, 2):
        with pytest.raises(ConflictError) as caught:
            await set_alias(session, "task", "prod", version=2, expected_version=wrong)
        assert caught.value.details["found"] == 1
    moved = await set_alias(session, "task", "prod", version=2, expected_version=1)
    assert moved.version == 2
    assert {record.alias: record.version for record in await list_aliases(session, "task")} == {
        "latest": 2,
        "prod": 2,
    }


async def test_of_many_equal_moves_exactly_one_wins(sessions: Sessions) -> None:
    async with sessions() as session:
        await store(session, seed=1)
        await store(session, seed=2)
        await session.commit()

    async def move() -> bool:
        async with sessions() as session:
            try:
                await set_alias(session, "task", "prod", version=2, expected_version=0)
                await session.commit()
            except ConflictError:
                return False
            return True

    assert sum(await asyncio.gather(*(move() for _ in range(12)))) == 1


async def test_alias_mistakes_are_refused(session: AsyncSession) -> None:
    await store(session)
    with pytest.raises(InvalidInputError):
        await set_alias(session, "task", "latest", version=1)
    with pytest.raises(InvalidInputError):
        await delete_alias(session, "task", "latest")
    with pytest.raises(InvalidInputError):
        await set_alias(session, "task", "7", version=1)
    for name, version in (("other", 1), ("task", 2)):
        with pytest.raises(NotFoundError):
            await set_alias(session, name, "prod", version=version)
    with pytest.raises(NotFoundError):
        await delete_alias(session, "task", "prod")


async def test_evaluations_belong_to_their_vectors(session: AsyncSession) -> None:
    stored = await store(session)
    made = [
        await add_evaluation(
            session,
            vector_id=stored.id,
            measured=measured(
                items=500,
                accuracy=accuracy,
                low=accuracy - 0.1,
                high=accuracy + 0.1,
                zero_shot=0.3,
            ),
            details={"loss": float("nan"), "name": "a\0b"},
        )
        for accuracy in (0.5, 0.6)
    ]
    assert await list_evaluations(session, stored.id) == made[::-1]
    assert (made[1].accuracy, made[1].zero_shot, made[1].icl) == (0.6, 0.3, None)
    assert made[1].details == {"loss": None, "name": "ab"}


@pytest.mark.parametrize("wrong", [{"low": 0.9}, {"high": 0.4}])
async def test_an_evaluation_out_of_order_is_refused(
    session: AsyncSession, wrong: dict[str, Any]
) -> None:
    stored = await store(session)
    with pytest.raises(InvalidInputError, match="Wanted 0 <= low <= accuracy <= high <= 1"):
        await add_evaluation(session, vector_id=stored.id, measured=measured(**wrong))


@pytest.mark.parametrize(
    "wrong", [{"items": 0}, {"high": 1.5}, {"icl": -0.1}, {"accuracy": float("nan")}]
)
def test_no_measurement_has_shares_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        measured(**wrong)


async def test_a_gain_is_the_newest_on_the_task_itself(session: AsyncSession) -> None:
    stored, bare = await store(session, seed=1), await store(session, seed=2)
    for dataset, accuracy, zero_shot in (
        ("own", 0.9, None),
        ("own", 0.5, 0.4),
        ("own", 0.75, 0.5),
        ("another", 0.5, 0.75),
    ):
        one = measured(dataset=dataset, accuracy=accuracy, low=0, high=1, zero_shot=zero_shot)
        await add_evaluation(session, vector_id=stored.id, measured=one)
    assert await held_out_gains(session, [stored.id, bare.id]) == {stored.id: 0.25}


async def test_an_evaluation_of_nothing_is_refused(session: AsyncSession) -> None:
    with pytest.raises(NotFoundError):
        await add_evaluation(session, vector_id=uuid.uuid4(), measured=measured())


async def test_backbones_are_remembered_once(session: AsyncSession) -> None:
    await store(session, seed=1)
    await store(session, seed=2)
    assert await session.scalar(text("SELECT count(*) FROM backbones")) == 1
    assert await get_backbone(session, FINGERPRINT) == make_description()
    with pytest.raises(NotFoundError):
        await get_backbone(session, "0" * 64)


async def test_deeds_are_kept_and_cannot_be_changed(session: AsyncSession) -> None:
    stored = await store(session)
    await set_alias(session, "task", "prod", version=1)
    await delete_alias(session, "task", "prod")
    await delete_vector(session, stored.id)
    act_as(session, "me")
    await write_audit(session, action="custom", subject="x")
    deeds = await list_audit(session)
    assert [deed.action for deed in deeds] == [
        "vector.create",
        "alias.set",
        "alias.delete",
        "vector.delete",
        "custom",
    ]
    assert deeds[-1].actor == "me"
    assert [deed.action for deed in await list_audit(session, subject=str(stored.id))] == [
        "vector.create",
        "vector.delete",
    ]
    assert len(await list_audit(session, after=deeds[2].id)) == 2
    await session.commit()
    for change in ("UPDATE audit SET actor = 'someone'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="append-only"):
            await session.execute(text(change))
        await session.rollback()


async def test_what_is_gone_is_found_in_the_trail_by_its_name(session: AsyncSession) -> None:
    first, second = await store(session, seed=1), await store(session, seed=2)
    other = await store(session, "other", seed=3)
    await add_evaluation(session, vector_id=first.id, measured=measured())
    await set_alias(session, "task", "prod", version=2)
    await delete_alias(session, "task", "prod")
    for vector in (first, second):
        await delete_vector(session, vector.id)

    async def found(subject: str) -> list[tuple[str, str]]:
        return [(deed.action, deed.subject) for deed in await list_audit(session, subject=subject)]

    made, measuring, gone = "vector.create", "evaluation.create", "vector.delete"
    own = [(made, str(first.id)), (measuring, str(first.id)), (gone, str(first.id))]
    assert await found("task@1") == await found(str(first.id)) == own
    assert await found("task@2") == [(made, str(second.id)), (gone, str(second.id))]
    assert sorted(await found("task")) == sorted(own + await found("task@2"))
    assert await found("task@prod") == [("alias.set", "task@prod"), ("alias.delete", "task@prod")]
    assert await found("other") == await found("other@1") == [(made, str(other.id))]
    assert [await found(text) for text in ("task@3", "tas", "task@", "@1")] == [[]] * 4


async def test_a_change_is_told_with_what_was_before(session: AsyncSession) -> None:
    stored = await store(session, "task", tags=["a"])
    await update_vector(session, stored.id, tags=["a", "b"], status="retired")
    # What changes nothing is no deed.
    await update_vector(session, stored.id, tags=["b", "a"])
    await add_evaluation(session, vector_id=stored.id, measured=measured())
    _, changed, added = await list_audit(session, subject=str(stored.id))
    assert (changed.action, added.action) == ("vector.update", "evaluation.create")
    assert changed.details == {
        "name": "task",
        "version": 1,
        "tags": {"from": ["a"], "to": ["a", "b"]},
        "status": {"from": "ready", "to": "retired"},
    }
    assert added.details == {"dataset": "d", "split": "test", "scorer": "exact", "accuracy": 0.5}


async def test_a_deadlock_is_tried_again(sessions: Sessions) -> None:
    async with sessions() as session:
        await store(session, "a")
        await store(session, "b")
        await session.commit()
    both_hold_one = asyncio.Barrier(2)
    tries: list[str] = []

    async def lock_both(first: str, second: str) -> str:
        async def work(session: AsyncSession) -> str:
            tries.append(first)
            query = text("SELECT 1 FROM vector_names WHERE name = :name FOR UPDATE")
            await session.execute(query, {"name": first})
            if len(tries) <= 2:
                await both_hold_one.wait()
            await session.execute(query, {"name": second})
            return first

        return await run_transaction(sessions, work)

    won = await asyncio.gather(lock_both("a", "b"), lock_both("b", "a"))
    assert list(won) == ["a", "b"]
    assert len(tries) == 3


async def test_another_error_is_not_tried_again(sessions: Sessions) -> None:
    tries: list[int] = []

    async def work(session: AsyncSession) -> None:
        tries.append(1)
        await session.execute(text("SELECT 1/0"))

    with pytest.raises(DBAPIError):
        await run_transaction(sessions, work)
    assert len(tries) == 1
