import asyncio
import datetime as dt
import uuid
from typing import Any

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import (
    ConflictError,
    IncompatibleBackboneError,
    InvalidInputError,
    NotFoundError,
    VLibraryError,
)
from app.core.vectors.card import EvaluationCard
from app.core.vectors.file import decode_vector_file
from app.core.vectors.tensors import VectorTensors
from app.library.aliases import lock_name, set_alias
from app.library.catalogue.batches import Action, change_each, prune_versions
from app.library.catalogue.combination import combine_vectors
from app.library.catalogue.comparison import compare_measurements, similarities
from app.library.catalogue.filters import VectorFilters, list_vectors
from app.library.catalogue.lineage import find_sources
from app.library.database import Sessions
from app.library.evaluations import add_evaluation
from app.library.records import VectorRecord
from app.library.vector_rows import get_blob
from app.library.vectors import delete_vector, find_same, update_vector
from tests.fakes.library import store, until_somebody_waits
from tests.fakes.task_keys import axis, put
from tests.fakes.vectors import make_description

pytestmark = pytest.mark.anyio


async def listed(session: AsyncSession, **filters: Any) -> list[str]:  # noqa: ANN401 - filters of any kind
    found = await list_vectors(session, VectorFilters(**filters))
    return [f"{record.name}@{record.version}" for record in found.items]


async def measure(
    session: AsyncSession, record: VectorRecord, *, accuracy: float, spread: float = 0.05
) -> None:
    await add_evaluation(
        session,
        vector_id=record.id,
        measured=EvaluationCard(
            dataset="easy-vqa",
            split="test",
            scorer="exact-match",
            items=100,
            accuracy=accuracy,
            low=accuracy - spread,
            high=accuracy + spread,
            zero_shot=0.2,
        ),
    )


class TestFilters:
    async def test_every_word_is_looked_for_in_name_description_and_tags(
        self, session: AsyncSession
    ) -> None:
        await store(session, "gears", description="Steel PARTS, 50 % hard", tags=["workshop"])
        await store(session, "colours", description="100_percent", tags=["toy", "red ball"])
        assert await listed(session, text="steel workshop") == ["gears@1"]
        assert await listed(session, text="COLOUR ball") == ["colours@1"]
        assert await listed(session, text="steel ball") == []
        # What SQL would take for wildcards is text.
        assert await listed(session, text="50 %") == ["gears@1"]
        assert await listed(session, text="0_p") == ["colours@1"]
        assert await listed(session, text="  ") == ["colours@1", "gears@1"]
        # Nor are letters beyond ASCII left to what the database's locale knows of them.
        odd = r"Zähne Жук ÅNGSTRÖM 😀 a]b^c-d\d[e.f"
        await update_vector(session, (await store(session, "odd")).id, description=odd)
        for text in ("zÄHNE жУК", "ångström 😀", r"A]B^C-D\D[E.F"):
            assert await listed(session, text=text) == ["odd@1"]
        for text in ("zahne", "a.b", r"\w"):
            assert await listed(session, text=text) == []
        with pytest.raises(InvalidInputError):
            await listed(session, text="a " * 17)

    async def test_filters_combine(self, session: AsyncSession) -> None:
        first = await store(session, "a", tags=["x", "y"])
        second = await store(session, "b", seed=1, tags=["x"])
        await set_alias(session, "b", "prod", version=1)
        assert await listed(session, tags=("x",)) == ["b@1", "a@1"]
        assert await listed(session, tags=("x", "y")) == ["a@1"]
        assert await listed(session, alias="prod") == ["b@1"]
        assert await listed(session, alias="prod", tags=("y",)) == []
        assert await listed(session, created_after=second.created) == ["b@1"]
        assert await listed(session, created_before=second.created) == ["a@1"]
        later = second.created + dt.timedelta(days=1)
        assert await listed(session, created_after=later) == []
        assert await listed(session, parent=first.id) == []
        assert await listed(session, method="m2iv") == ["b@1", "a@1"]
        assert await listed(session, job_id=uuid.uuid4()) == []

    async def test_the_newest_measurement_decides(self, session: AsyncSession) -> None:
        good, worse = await store(session, "good"), await store(session, "worse", seed=1)
        await store(session, "unmeasured", seed=2)
        await measure(session, good, accuracy=0.5)
        await measure(session, good, accuracy=0.9)
        await measure(session, worse, accuracy=0.9)
        await measure(session, worse, accuracy=0.3)
        assert await listed(session, min_accuracy=0.8) == ["good@1"]
        assert await listed(session, min_accuracy=0.3) == ["worse@1", "good@1"]
        assert await listed(session, min_gain=0.5) == ["good@1"]

    async def test_a_cursor_belongs_to_its_filters(self, session: AsyncSession) -> None:
        for seed in range(3):
            await store(session, "a", seed=seed, tags=["x", "y"])
        page = await list_vectors(session, VectorFilters(tags=("x", "y")), limit=2)
        same = VectorFilters(tags=("y", "x"))
        rest = await list_vectors(session, same, limit=2, cursor=page.next_cursor)
        assert [record.version for record in rest.items] == [1]
        for other in (VectorFilters(tags=("x",)), VectorFilters()):
            with pytest.raises(InvalidInputError, match="other filters"):
                await list_vectors(session, other, cursor=page.next_cursor)


class TestBatches:
    async def test_a_refusal_stops_no_other(self, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            for seed in range(3):
                await store(session, "a", seed=seed)
            await set_alias(session, "a", "prod", version=2)
        refs = ["a@1", "a@2", "a@9", "no such", "a@3", "a@1"]
        async with sessions.begin() as session:
            outcomes = await change_each(session, refs, action="delete")
        assert list(outcomes) == refs[:-1]
        kinds = [type(found) for found in outcomes.values() if isinstance(found, VLibraryError)]
        assert kinds == [ConflictError, NotFoundError, InvalidInputError]
        async with sessions() as session:
            assert await listed(session) == ["a@2"]

    async def test_several_references_to_one_vector_delete_that_one_alone(
        self, sessions: Sessions
    ) -> None:
        async with sessions.begin() as session:
            records = [await store(session, "a", seed=seed) for seed in range(4)]
        refs = ["a", "a@latest", "a@4", str(records[3].id), "a@3"]
        async with sessions.begin() as session:
            outcomes = await change_each(session, refs, action="delete")
        versions = [getattr(outcomes[ref], "version", None) for ref in refs]
        assert versions == [4, 4, 4, 4, 3]
        async with sessions() as session:
            assert await listed(session) == ["a@2", "a@1"]

    async def test_a_batch_and_a_change_beside_it_do_not_hold_each_other_up(
        self, sessions: Sessions
    ) -> None:
        async with sessions() as session:
            ids = [await put(session, name, axis(0)) for name in "ab"]

        async def retire() -> None:
            async with sessions.begin() as session:
                await change_each(session, ["a", "b"], action="set-status", status="retired")

        async with sessions.begin() as session:
            # As whoever stores another version of the name does first.
            await lock_name(session, "b")
            retiring = asyncio.create_task(retire())
            await until_somebody_waits(session)
            await update_vector(session, ids[1], status="unproven")
        await retiring
        async with sessions() as session:
            assert await listed(session, status="retired") == ["b@1", "a@1"]

    async def test_tags_that_others_change_meanwhile_are_kept(self, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            record = await store(session, "a", tags=["old"])

        async def change(ref: str, action: Action, *tags: str) -> None:
            async with sessions.begin() as session:
                await change_each(session, [ref], action=action, tags=tags)

        await asyncio.gather(*(change("a", "tag", f"new-{one}") for one in range(4)))
        await change(str(record.id), "untag", "old", "none")
        async with sessions() as session:
            tags = (await list_vectors(session)).items[0].tags
        assert tags == ("new-0", "new-1", "new-2", "new-3")

    async def test_pruning_keeps_the_newest_and_what_is_called_by_an_alias(
        self, session: AsyncSession
    ) -> None:
        for seed in range(6):
            await store(session, "a", seed=seed)
        await store(session, "b", seed=9)
        await set_alias(session, "a", "prod", version=2)
        pruned = await prune_versions(session, "a", keep_last=2)
        assert [record.version for record in pruned] == [4, 3, 1]
        assert await listed(session) == ["b@1", "a@6", "a@5", "a@2"]
        assert await prune_versions(session, "a", keep_last=2) == ()
        with pytest.raises(InvalidInputError):
            await prune_versions(session, "a", keep_last=0)
        with pytest.raises(NotFoundError):
            await prune_versions(session, "c", keep_last=1)


class TestComparisons:
    async def test_measurements_on_equal_terms_stand_beside_each_other(
        self, session: AsyncSession
    ) -> None:
        records = [await store(session, name, seed=seed) for seed, name in enumerate("abc")]
        await measure(session, records[0], accuracy=0.5)
        await measure(session, records[0], accuracy=0.9)
        await measure(session, records[1], accuracy=0.6)
        (found,) = await compare_measurements(session, [record.id for record in records])
        assert [item.accuracy if item else None for item in found.results] == [0.9, 0.6, None]
        assert (found.best, found.is_clear) == (0, True)
        await measure(session, records[2], accuracy=0.85)
        (found,) = await compare_measurements(session, [record.id for record in records])
        assert (found.best, found.is_clear) == (0, False)
        assert await compare_measurements(session, []) == []

    async def test_directions_are_compared_within_a_backbone(self, session: AsyncSession) -> None:
        one = await store(session, "one")
        same = await store(session, "same")
        opposite, _ = await combine_vectors(
            session, name="opposite", parts=[(one, -1.0), (same, -2.0)]
        )
        foreign = await store(session, "foreign", backbone=make_description("cd" * 32))
        found = await similarities(session, [one, same, opposite, foreign])
        assert found[0][:3] == pytest.approx([1, 1, -1])
        assert [row[3] for row in found] == [None, None, None, pytest.approx(1)]


class TestCombinations:
    async def test_a_sum_adds_the_shifts_and_records_its_parents(
        self, session: AsyncSession
    ) -> None:
        a, b = await store(session, "a", seed=1), await store(session, "b", seed=2)
        made, is_new = await combine_vectors(session, name="sum", parts=[(a, 0.5), (b, -2.0)])
        assert is_new
        assert (made.parents, made.status, made.shots) == ((a.id, b.id), "unproven", 32)

        async def tensors(record: VectorRecord) -> VectorTensors:
            return decode_vector_file(await get_blob(session, record.id))[0]

        wanted = 0.5 * (await tensors(a)).shift() - 2 * (await tensors(b)).shift()
        np.testing.assert_allclose((await tensors(made)).shift(), wanted, atol=1e-6)
        again, is_new = await combine_vectors(session, name="sum", parts=[(a, 0.5), (b, -2.0)])
        assert (again.id, is_new) == (made.id, False)
        assert await listed(session, parent=a.id) == ["sum@1"]
        # The file alone tells what it was made of.
        assert (await find_same(session, name="sum", sha256=made.sha256)) is not None
        await update_vector(session, made.id, status="ready")

    async def test_what_cannot_be_added_is_refused(self, session: AsyncSession) -> None:
        a, b = await store(session, "a", seed=1), await store(session, "b", seed=1)
        foreign = await store(session, "c", backbone=make_description("cd" * 32))
        for parts in ([(a, 1.0)], [(a, 1.0), (a, 1.0)], [(a, 1.0), (b, 0.0)]):
            with pytest.raises(InvalidInputError):
                await combine_vectors(session, name="sum", parts=parts)
        with pytest.raises(InvalidInputError, match="cancel"):
            await combine_vectors(session, name="sum", parts=[(a, 1.0), (b, -1.0)])
        with pytest.raises(IncompatibleBackboneError):
            await combine_vectors(session, name="sum", parts=[(a, 1.0), (foreign, 1.0)])

    async def test_everything_that_sums_of_sums_learnt_from_is_found(
        self, session: AsyncSession
    ) -> None:
        parts = [await store(session, name, seed=place) for place, name in enumerate("abc")]
        made = parts[0]
        for generation in range(40):
            other = parts[1 + generation % 2]
            made, is_new = await combine_vectors(
                session, name="sum", parts=[(made, 1.0), (other, 0.1 * (generation + 1))]
            )
            assert is_new
        await delete_vector(session, parts[0].id)
        sources = await find_sources(session, [made.id])
        assert [source.vector for source in sources] == ["a@1", "b@1", "c@1"]
        assert [one.vector for one in await find_sources(session, [parts[1].id])] == ["b@1"]
