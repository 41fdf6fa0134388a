import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidInputError
from app.core.identifiers import new_id
from app.core.states import VectorStatus
from app.library.search import rows as rows_module
from app.library.search.index import Snapshot
from app.library.search.verdicts import Hit
from app.library.task_keys import Float32Array, FloatArray, VectorKeys, unit_rows
from tests.fakes.vectors import FINGERPRINT

DIMENSION = 6


def make_keys(
    embeddings: Float32Array,
    *,
    vector_id: uuid.UUID | None = None,
    name: str = "task",
    backbone: str = FINGERPRINT,
    status: VectorStatus = "ready",
    threshold: float = 0.0,
) -> VectorKeys:
    return VectorKeys(
        vector_id=vector_id or new_id(),
        name=name,
        backbone_fingerprint=backbone,
        status=status,
        embeddings=embeddings,
        threshold=threshold,
    )


def some_keys(rng: np.random.Generator, *, count: int, rows: int = 3) -> list[VectorKeys]:
    return [
        make_keys(unit_rows(rng.standard_normal((rows, DIMENSION))), threshold=0.25)
        for _ in range(count)
    ]


def build(keys: list[VectorKeys], *, epoch: int = 1) -> Snapshot:
    return Snapshot.build("space", epoch=epoch, dimension=DIMENSION, keys=keys)


def scan(keys: list[VectorKeys], query: Float32Array, *, k: int) -> list[uuid.UUID]:
    unit = query / np.linalg.norm(query)

    def rank(item: VectorKeys) -> tuple[bool, float]:
        score = float((item.embeddings @ unit).max())
        return score < item.threshold, -score

    return [item.vector_id for item in sorted(keys, key=rank)][:k]


def look(
    snapshot: Snapshot,
    query: FloatArray,
    *,
    k: int = 3,
    backbone: str = FINGERPRINT,
    statuses: Sequence[str] = ("ready",),
    among: set[uuid.UUID] | None = None,
) -> list[Hit]:
    return snapshot.search(
        query, backbone_fingerprint=backbone, statuses=statuses, k=k, among=among
    )


def found(snapshot: Snapshot, query: Float32Array, *, k: int) -> list[uuid.UUID]:
    return [hit.vector_id for hit in look(snapshot, query, k=k)]


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=8),
    spare=st.sampled_from([0, 4, 1024]),
)
@settings(max_examples=40)
def test_any_history_of_updates_equals_a_plain_scan(
    seed: int, steps: list[tuple[int, int]], spare: int
) -> None:
    rng = np.random.default_rng(seed)
    live = some_keys(rng, count=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "LEAST_SPARE_ROWS", spare)
        snapshot = build(live)
        for epoch, (added, removed) in enumerate(steps, start=2):
            fresh = some_keys(rng, count=added, rows=2)
            gone, live = live[:removed], live[removed:]
            renewed = [
                make_keys(fresh[0].embeddings, vector_id=item.vector_id)
                for item in live[:1]
                if fresh
            ]
            live = renewed + live[len(renewed) :] + fresh[1:]
            changed = {item.vector_id for item in [*gone, *renewed, *fresh]}
            snapshot = snapshot.update(epoch=epoch, changed=changed, keys=renewed + fresh[1:])
    assert len(snapshot._table) == len(live)
    assert snapshot.epoch == len(steps) + 1
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    assert found(snapshot, query, k=50) == scan(live, query, k=50)
    assert found(snapshot, query, k=2) == scan(live, query, k=2)


def test_an_update_leaves_the_old_snapshot_as_it_was() -> None:
    rng = np.random.default_rng(0)
    keys, more = some_keys(rng, count=5), some_keys(rng, count=2)
    old = build(keys)
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    before = look(old, query, k=5)
    new = old.update(epoch=2, changed={keys[0].vector_id, more[0].vector_id}, keys=more[:1])
    assert look(old, query, k=5) == before
    assert (old.epoch, len(old._table), new.epoch, len(new._table)) == (1, 5, 2, 5)


def test_two_successors_of_a_snapshot_do_not_write_into_each_other() -> None:
    rng = np.random.default_rng(0)
    keys, left, right = (some_keys(rng, count=3) for _ in range(3))
    old = build(keys)
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    one = old.update(epoch=2, changed=set(), keys=left)
    other = old.update(epoch=2, changed=set(), keys=right)
    assert found(one, query, k=6) == scan(keys + left, query, k=6)
    assert found(other, query, k=6) == scan(keys + right, query, k=6)


def test_two_threads_that_make_successors_do_not_write_into_each_other() -> None:
    # Where a request is cancelled its thread goes on, and the next request begins another.
    rng = np.random.default_rng(0)
    snapshot = build(some_keys(rng, count=1))
    first, second = some_keys(rng, count=2)
    made: list[Snapshot] = []

    def update(keys: VectorKeys) -> None:
        made.append(snapshot.update(epoch=2, changed={keys.vector_id}, keys=[keys]))

    other = threading.Thread(target=update, args=(second,))

    class Interrupted:
        """Rows whose copying is interrupted by the other thread."""

        def __len__(self) -> int:
            return len(first.embeddings)

        def __array__(self, *_args: object, **_options: object) -> Float32Array:
            other.start()
            other.join(1.0)
            return first.embeddings

    slow: Any = Interrupted()
    update(replace(first, embeddings=slow))
    other.join()
    for keys in (first, second):
        (successor,) = (one for one in made if keys.vector_id in one)
        assert np.array_equal(successor.keys_of(keys.vector_id).embeddings, keys.embeddings)


def test_many_dead_rows_or_no_room_lead_to_a_fresh_copy() -> None:
    rng = np.random.default_rng(0)
    keys = some_keys(rng, count=20)
    snapshot = build(keys)
    grown = snapshot.update(epoch=2, changed=set(), keys=some_keys(rng, count=2))
    assert grown.num_rows == 66
    renewed = grown.update(epoch=3, changed={keys[0].vector_id}, keys=[])
    assert (renewed.num_rows, len(renewed._table)) == (66, 21)
    shrunk = renewed.update(epoch=4, changed={item.vector_id for item in keys[:10]}, keys=[])
    assert (shrunk.num_rows, len(shrunk._table), shrunk.epoch) == (36, 12, 4)
    long = snapshot.update(epoch=2, changed=set(), keys=some_keys(rng, count=1400))
    assert (long.num_rows, len(long._table)) == (4260, 1420)
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    assert found(renewed, query, k=5)[0] == found(grown, query, k=5)[0] != keys[0].vector_id


def test_only_what_fits_is_found() -> None:
    rng = np.random.default_rng(0)
    row = unit_rows(rng.standard_normal((1, DIMENSION)))
    ready = make_keys(row)
    collapsed = make_keys(row, status="collapsed")
    foreign = make_keys(row, backbone="cd" * 32)
    snapshot = build([ready, collapsed]).update(epoch=2, changed=set(), keys=[foreign])
    assert found(snapshot, row[0], k=5) == [ready.vector_id]
    both = look(snapshot, row[0], statuses=("ready", "collapsed"))
    assert [hit.vector_id for hit in both] == [collapsed.vector_id, ready.vector_id]
    (other,) = look(snapshot, row[0], backbone="cd" * 32)
    assert other.vector_id == foreign.vector_id
    assert look(snapshot, row[0], backbone="ef" * 32) == []
    assert look(snapshot, row[0], statuses=("retired",)) == []
    assert look(snapshot, row[0], statuses=()) == []
    two = {ready.vector_id, foreign.vector_id}
    (one,) = look(snapshot, row[0], statuses=("ready", "collapsed"), among=two)
    assert one.vector_id == ready.vector_id
    assert look(snapshot, row[0], among=set()) == []


def test_an_empty_snapshot_finds_nothing() -> None:
    assert look(build([]), np.ones(DIMENSION, np.float32)) == []


def test_a_key_finds_itself_with_score_one() -> None:
    keys = some_keys(np.random.default_rng(0), count=5)
    (hit,) = look(build(keys), 100 * keys[2].embeddings[1], k=1)
    assert (hit.vector_id, hit.name, hit.threshold) == (keys[2].vector_id, "task", 0.25)
    assert hit.score == pytest.approx(1.0, abs=1e-6)


def test_of_equal_scores_the_newer_comes_first_however_they_were_added() -> None:
    row = unit_rows(np.random.default_rng(0).standard_normal((1, DIMENSION)))
    keys = [make_keys(row) for _ in range(4)]
    snapshot = build(keys[:2]).update(epoch=2, changed=set(), keys=keys[2:])
    newest_first = [item.vector_id for item in reversed(keys)]
    assert found(snapshot, row[0], k=4) == newest_first
    assert found(snapshot, row[0], k=2) == newest_first[:2]


@pytest.mark.parametrize(
    "query", [np.zeros(DIMENSION), np.full(DIMENSION, np.nan), np.ones(DIMENSION - 1)]
)
def test_a_query_without_direction_or_of_another_dimension_is_refused(query: FloatArray) -> None:
    keys = some_keys(np.random.default_rng(0), count=2)
    with pytest.raises(InvalidInputError):
        look(build(keys), query)


def test_searches_and_updates_side_by_side_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    keys = some_keys(rng, count=50)
    old = build(keys)
    query = rng.standard_normal(DIMENSION).astype(np.float32)
    wanted = scan(keys, query, k=5)
    wrong: list[list[uuid.UUID]] = []
    finished = threading.Event()

    def search() -> None:
        while not finished.is_set():
            if (seen := found(old, query, k=5)) != wanted:
                wrong.append(seen)

    readers = [threading.Thread(target=search) for _ in range(3)]
    for reader in readers:
        reader.start()
    newest = old
    for epoch in range(2, 60):
        newest = newest.update(epoch=epoch, changed=set(), keys=some_keys(rng, count=40))
    finished.set()
    for reader in readers:
        reader.join()
    assert wrong == []
