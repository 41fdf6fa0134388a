import threading
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidInputError
from app.core.identifiers import new_id
from app.library import index
from app.library.index import Snapshot
from app.library.keys import Float32Array, VectorKeys, unit_rows

DIMENSION = 6


def some_keys(rng: np.random.Generator, *, count: int, rows: int = 3) -> list[VectorKeys]:
    return [
        VectorKeys(new_id(), unit_rows(rng.standard_normal((rows, DIMENSION))), 0.25)
        for _ in range(count)
    ]


def build(keys: list[VectorKeys], *, epoch: int = 1) -> Snapshot:
    return Snapshot.build("space", epoch=epoch, dimension=DIMENSION, keys=keys)


def scan(keys: list[VectorKeys], query: Float32Array, *, k: int) -> list[uuid.UUID]:
    unit = query / np.linalg.norm(query)
    return [
        item.vector_id
        for item in sorted(keys, key=lambda item: -float((item.embeddings @ unit).max()))
    ][:k]


def found(
    snapshot: Snapshot, keys: list[VectorKeys], query: Float32Array, *, k: int
) -> list[uuid.UUID]:
    allowed = [item.vector_id for item in keys]
    return [hit.vector_id for hit in snapshot.search(query, allowed=allowed, k=k)]


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=8),
    tail=st.sampled_from([0, 4, 4096]),
)
@settings(max_examples=40)
def test_any_history_of_updates_equals_a_plain_scan(
    seed: int, steps: list[tuple[int, int]], tail: int
) -> None:
    rng = np.random.default_rng(seed)
    live = some_keys(rng, count=4)
    snapshot = build(live)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "MAX_TAIL_ROWS", tail)
        for epoch, (added, removed) in enumerate(steps, start=2):
            fresh = some_keys(rng, count=added, rows=2)
            gone, live = live[:removed], live[removed:]
            renewed = [
                VectorKeys(item.vector_id, fresh[0].embeddings, 0.5) for item in live[:1] if fresh
            ]
            live = renewed + live[len(renewed) :] + fresh[1:]
            changed = {item.vector_id for item in [*gone, *renewed, *fresh]}
            snapshot = snapshot.update(epoch=epoch, changed=changed, keys=renewed + fresh[1:])
    assert snapshot.num_vectors == len(live)
    assert snapshot.epoch == len(steps) + 1
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    assert found(snapshot, live, query, k=50) == scan(live, query, k=50)
    assert found(snapshot, live, query, k=2) == scan(live, query, k=2)


def test_an_update_leaves_the_old_snapshot_as_it_was() -> None:
    rng = np.random.default_rng(0)
    keys, more = some_keys(rng, count=5), some_keys(rng, count=2)
    old = build(keys)
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    before = old.search(query, allowed=[item.vector_id for item in keys], k=5)
    new = old.update(epoch=2, changed={keys[0].vector_id, more[0].vector_id}, keys=more[:1])
    assert old.search(query, allowed=[item.vector_id for item in keys], k=5) == before
    assert (old.epoch, old.num_vectors, new.epoch, new.num_vectors) == (1, 5, 2, 5)


def test_a_long_tail_or_many_dead_rows_lead_to_a_fresh_base() -> None:
    rng = np.random.default_rng(0)
    keys = some_keys(rng, count=20)
    snapshot = build(keys)
    grown = snapshot.update(epoch=2, changed=set(), keys=some_keys(rng, count=2))
    assert grown.num_tail_rows == 6
    shrunk = grown.update(epoch=3, changed={item.vector_id for item in keys[:10]}, keys=[])
    assert (shrunk.num_tail_rows, shrunk.num_vectors, shrunk.epoch) == (0, 12, 3)
    long = snapshot.update(epoch=2, changed=set(), keys=some_keys(rng, count=1400))
    assert (long.num_tail_rows, long.num_vectors) == (0, 1420)


def test_only_what_is_allowed_is_found() -> None:
    rng = np.random.default_rng(0)
    keys = some_keys(rng, count=30)
    snapshot = build(keys)
    query = keys[0].embeddings[0]
    assert found(snapshot, keys[1:], query, k=30) == scan(keys[1:], query, k=30)
    assert snapshot.search(query, allowed=[uuid.uuid4()], k=3) == []
    assert snapshot.search(query, allowed=[], k=3) == []


def test_an_empty_snapshot_finds_nothing() -> None:
    assert build([]).search(np.ones(DIMENSION, np.float32), allowed=[uuid.uuid4()], k=3) == []


def test_a_key_finds_itself_with_score_one() -> None:
    keys = some_keys(np.random.default_rng(0), count=5)
    (hit,) = build(keys).search(100 * keys[2].embeddings[1], allowed=[keys[2].vector_id], k=1)
    assert hit.score == pytest.approx(1.0, abs=1e-6)
    assert hit.threshold == 0.25


def test_of_equal_scores_the_newer_comes_first_in_base_and_tail() -> None:
    row = unit_rows(np.random.default_rng(0).standard_normal((1, DIMENSION)))
    keys = [VectorKeys(new_id(), row, 0.0) for _ in range(4)]
    snapshot = build(keys[:2]).update(epoch=2, changed=set(), keys=keys[2:])
    newest_first = [item.vector_id for item in reversed(keys)]
    assert found(snapshot, keys, row[0], k=4) == newest_first
    assert found(snapshot, keys, row[0], k=2) == newest_first[:2]


@pytest.mark.parametrize("query", [np.zeros(DIMENSION), np.full(DIMENSION, np.nan)])
def test_a_query_without_direction_is_refused(query: Float32Array) -> None:
    with pytest.raises(InvalidInputError):
        build([]).search(query, allowed=[], k=1)


def test_searches_and_updates_side_by_side_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    keys = some_keys(rng, count=50)
    current = [build(keys)]
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    wanted = scan(keys, query, k=5)
    wrong: list[list[uuid.UUID]] = []
    finished = threading.Event()

    def look() -> None:
        while not finished.is_set():
            if (seen := found(current[0], keys, query, k=5)) != wanted:
                wrong.append(seen)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for epoch in range(2, 60):
        current[0] = current[0].update(epoch=epoch, changed=set(), keys=some_keys(rng, count=40))
    finished.set()
    for reader in readers:
        reader.join()
    assert wrong == []
