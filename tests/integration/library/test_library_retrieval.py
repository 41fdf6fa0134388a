import asyncio
import threading
from collections.abc import AsyncIterator
from typing import cast

import numpy as np
import pytest
from sqlalchemy import QueuePool, text
from sqlalchemy.event import listen
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import InvalidInputError, UnavailableError
from app.library.database import make_engine, session_factory
from app.library.search.retrieval import Retriever
from app.library.task_keys import Float32Array, add_keys
from app.library.vectors import delete_vector, update_vector
from tests.fakes.library import store
from tests.fakes.task_keys import SPACE, axis, card_of, put
from tests.fakes.vectors import FINGERPRINT
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio
Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def retriever(sessions: Sessions) -> AsyncIterator[Retriever]:
    made = Retriever(sessions, poll_seconds=0.05)
    await made.start()
    yield made
    await made.stop()


async def names(
    retriever: Retriever, query: Float32Array, *, k: int = 5, only_ready: bool = True
) -> list[str]:
    result = await retriever.search(
        query,
        space=SPACE,
        backbone_fingerprint=FINGERPRINT,
        k=k,
        only_ready=only_ready,
    )
    return [match.vector.name for match in result.matches]


async def test_an_empty_library_abstains(retriever: Retriever) -> None:
    result = await retriever.search(axis(0), space=SPACE, backbone_fingerprint=FINGERPRINT)
    assert (result.matches, result.abstained, result.reason) == ((), True, "no-vectors")
    assert result.epoch == 0


async def test_the_nearest_is_found_and_the_unrelated_abstains(
    session: AsyncSession, retriever: Retriever
) -> None:
    first = await put(session, "colors", axis(0), threshold=0.8)
    await put(session, "shapes", axis(1), exemplars=np.stack([axis(1), axis(2)]))
    near = await retriever.search(
        10 * axis(0, towards=1, share=0.1), space=SPACE, backbone_fingerprint=FINGERPRINT
    )
    assert [match.vector.name for match in near.matches] == ["colors", "shapes"]
    assert (near.abstained, near.reason, near.epoch) == (False, None, 2)
    best = near.matches[0]
    assert best.vector.id == first
    assert best.score == pytest.approx(0.9 / np.hypot(0.9, 0.1), abs=1e-6)
    assert best.threshold == 0.8
    assert best.similarity == pytest.approx(best.score, abs=1e-6)
    assert [match.is_accepted for match in near.matches] == [True, False]
    far = await retriever.search(axis(3), space=SPACE, backbone_fingerprint=FINGERPRINT)
    assert (far.abstained, far.reason) == (True, "below-threshold")
    assert len(far.matches) == 2


async def test_a_score_is_the_best_over_all_keys(
    session: AsyncSession, retriever: Retriever
) -> None:
    await put(session, "shapes", axis(1), exemplars=np.stack([axis(2), axis(3)]))
    result = await retriever.search(axis(3), space=SPACE, backbone_fingerprint=FINGERPRINT)
    assert result.matches[0].score == pytest.approx(1.0, abs=1e-6)


async def test_every_committed_change_is_seen_by_the_next_search(
    session: AsyncSession, retriever: Retriever
) -> None:
    first = await put(session, "a", axis(0))
    assert await names(retriever, axis(0)) == ["a"]
    second = await put(session, "b", axis(0, towards=1, share=0.2))
    assert await names(retriever, axis(0)) == ["a", "b"]
    await delete_vector(session, first)
    assert await names(retriever, axis(0)) == ["a", "b"]
    await session.commit()
    assert await names(retriever, axis(0)) == ["b"]
    third = await put(session, "c", axis(2))
    result = await retriever.search(axis(2), space=SPACE, backbone_fingerprint=FINGERPRINT)
    assert result.matches[0].score == pytest.approx(1.0, abs=1e-6)
    await update_vector(session, third, status="retired")
    await session.commit()
    assert await names(retriever, axis(2)) == ["b"]
    await delete_vector(session, second)
    await session.commit()
    assert await names(retriever, axis(0)) == []


async def test_only_this_backbone_and_usable_vectors_are_found(
    session: AsyncSession, retriever: Retriever
) -> None:
    await put(session, "other-backbone", axis(0), fingerprint="cd" * 32)
    await put(session, "bad", axis(0), status="collapsed")
    await put(session, "idle", axis(0), status="ineffective")
    await put(session, "young", axis(0), status="unproven")
    gone = await put(session, "old", axis(0))
    await update_vector(session, gone, status="retired")
    await session.commit()
    assert await names(retriever, axis(0)) == []
    everything = await names(retriever, axis(0), only_ready=False)
    assert sorted(everything) == ["bad", "idle", "young"]
    await update_vector(session, gone, status="ready")
    await session.commit()
    assert await names(retriever, axis(0)) == ["old"]


async def test_of_equal_versions_the_newest_comes_first(
    session: AsyncSession, retriever: Retriever
) -> None:
    for _ in range(3):
        await put(session, "task", axis(0))
    result = await retriever.search(axis(0), space=SPACE, backbone_fingerprint=FINGERPRINT, k=2)
    assert [match.vector.version for match in result.matches] == [3, 2]
    assert not result.abstained


async def test_a_small_lead_over_another_name_abstains(
    session: AsyncSession, sessions: Sessions
) -> None:
    await put(session, "a", axis(0))
    await put(session, "a", axis(0))
    await put(session, "b", axis(1))
    retriever = Retriever(sessions, margin=0.2)
    between = axis(0, towards=1, share=0.45)
    tight = await retriever.search(between, space=SPACE, backbone_fingerprint=FINGERPRINT, k=1)
    assert (tight.abstained, tight.reason, len(tight.matches)) == (True, "margin-too-small", 1)
    clear = await retriever.search(axis(0), space=SPACE, backbone_fingerprint=FINGERPRINT, k=1)
    assert not clear.abstained
    await retriever.stop()


async def test_the_background_task_follows_by_itself(
    session: AsyncSession, retriever: Retriever
) -> None:
    await put(session, "a", axis(0))
    for _ in range(100):
        if retriever.epoch(SPACE) == 1:
            break
        await asyncio.sleep(0.05)
    assert retriever.epoch(SPACE) == 1


@pytest.mark.parametrize("call", [1, 2])
async def test_a_database_that_is_away_is_asked_again(
    call: int, *, session: AsyncSession, sessions: Sessions
) -> None:
    class Failing:
        kw = sessions.kw
        calls = 0

        def __call__(self) -> AsyncSession:
            Failing.calls += 1
            if Failing.calls == call:
                raise ConnectionRefusedError
            return sessions()

    retriever = Retriever(Failing(), poll_seconds=0.01)  # type: ignore[arg-type]  # a factory is all it needs
    await retriever.start()
    await put(session, "a", axis(0))
    for _ in range(100):
        if retriever.epoch(SPACE) == 1:
            break
        await asyncio.sleep(0.05)
    assert retriever.epoch(SPACE) == 1
    await retriever.stop()


async def test_a_search_asks_the_database_only_about_what_it_returns(
    database: str, session: AsyncSession
) -> None:
    for number in range(8):
        await put(session, f"task-{number}", axis(number % 4))
    engine = make_engine(database)
    statements: list[str] = []
    listen(
        engine.sync_engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_others: statements.append(statement),
    )
    retriever = Retriever(session_factory(engine))
    await retriever.start()
    statements.clear()
    assert len(await names(retriever, axis(0), k=2)) == 2
    # What they and the epoch are, and how well the two that fit do.
    assert len(statements) == 2
    assert not any("FROM keys" in statement for statement in statements)
    await retriever.stop()
    await engine.dispose()


async def test_no_connection_is_held_while_a_search_computes(
    database: str, session: AsyncSession
) -> None:
    await put(session, "a", axis(0))
    engine = make_engine(database, pool_size=1)
    retriever = Retriever(session_factory(engine), num_threads=1)
    await retriever.start()
    is_free = threading.Event()
    retriever._threads.submit(is_free.wait)
    searching = asyncio.create_task(names(retriever, axis(0)))
    await until(lambda: retriever._threads._work_queue.qsize() == 1)
    assert cast("QueuePool", engine.pool).checkedout() == 0
    is_free.set()
    assert await searching == ["a"]
    await retriever.stop()
    await engine.dispose()


async def test_a_state_from_the_future_is_not_available(
    session: AsyncSession, retriever: Retriever
) -> None:
    await put(session, "a", axis(0))
    result = await retriever.search(
        axis(0), space=SPACE, backbone_fingerprint=FINGERPRINT, min_epoch=1
    )
    assert result.epoch == 1
    with pytest.raises(UnavailableError) as caught:
        await retriever.search(axis(0), space=SPACE, backbone_fingerprint=FINGERPRINT, min_epoch=2)
    assert caught.value.retry_after_seconds


async def test_the_index_is_watched_on_after_keys_that_cannot_be_read(
    session: AsyncSession, retriever: Retriever
) -> None:
    whole = "UPDATE keys SET embedding = substr(embedding || embedding || embedding, 1, 16)"
    vectors = await store(session, "a")
    await add_keys(session, card_of([axis(0), axis(1)]), vector_id=vectors.id)
    first = "(SELECT min(id) FROM keys)"
    cut = f"UPDATE keys SET embedding = substr(embedding, 1, 8) WHERE id = {first}"  # noqa: S608
    await session.execute(text(cut))
    await session.commit()
    # Several looks.
    await asyncio.sleep(0.5)
    assert retriever.epoch(SPACE) == 0
    await session.execute(text(whole))
    await session.commit()
    await until(lambda: retriever.epoch(SPACE) == 1)


@pytest.mark.parametrize("k", [0, 101, 10**9])
async def test_an_unbounded_k_is_refused(retriever: Retriever, k: int) -> None:
    with pytest.raises(InvalidInputError):
        await retriever.search(axis(0), space=SPACE, backbone_fingerprint=FINGERPRINT, k=k)


@pytest.mark.parametrize(
    "query",
    [np.zeros(4), np.full(4, np.nan), np.array([np.inf, 0, 0, 0]), np.ones(5), np.empty(0)],
    ids=["zero", "nan", "infinite", "too-long", "empty"],
)
async def test_a_query_without_direction_is_refused(
    session: AsyncSession, retriever: Retriever, query: Float32Array
) -> None:
    await put(session, "a", axis(0))
    with pytest.raises(InvalidInputError):
        await retriever.search(query, space=SPACE, backbone_fingerprint=FINGERPRINT)
