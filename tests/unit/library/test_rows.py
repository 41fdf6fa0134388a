"""Codes of keys' rows: they rule out what is too far, and change nothing that a search tells."""

import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.identifiers import new_id
from app.library.search import rows as rows_module
from app.library.search.index import Snapshot
from app.library.search.parts import parts_of
from app.library.search.rows import RowCodes, make_block
from app.library.search.verdicts import Hit
from app.library.task_keys import Float32Array, VectorKeys, unit_rows
from tests.fakes.vectors import FINGERPRINT

DIMENSION = 80
IMAGE_WIDTH = 16


def two_parts(rows: Float32Array) -> Float32Array:
    parts = [unit_rows(rows[:, :IMAGE_WIDTH]), unit_rows(rows[:, IMAGE_WIDTH:])]
    return unit_rows(np.concatenate(parts, axis=1))


def some_keys(
    rng: np.random.Generator, *, count: int, image_width: int | None, threshold: float
) -> list[VectorKeys]:
    """Keys around fewer directions than there are tasks, so that many are nearly equal."""
    directions = rng.standard_normal((max(1, count // 3), DIMENSION)) + 1.0
    found = []
    for place in range(count):
        near = directions[place % len(directions)]
        rows = near + rng.choice([0.0, 0.01, 1.0]) * rng.standard_normal((3, DIMENSION))
        found.append(
            VectorKeys(
                vector_id=new_id(),
                name=f"task-{place % (1 + count // 2)}",
                backbone_fingerprint=FINGERPRINT,
                status="ready" if rng.random() < 0.8 else "unproven",
                embeddings=unit_rows(rows) if image_width is None else two_parts(rows),
                threshold=threshold + float(rng.random()) * 0.3,
                text_threshold=None if image_width is None else threshold,
                workspace=str(rng.choice(["default", "other"])),
            )
        )
    return found


def just_accepting(
    keys: VectorKeys, query: Float32Array, *, image_width: int | None, by: float
) -> VectorKeys:
    """The same keys with thresholds that the query reaches by so much."""
    parts = parts_of(unit_rows(query[None])[0], image_width=image_width)
    reached = {name: float((keys.embeddings @ part).max()) - by for name, part in parts.items()}
    first = reached.get("row", reached.get("image", 0.0))
    return replace(keys, threshold=first, text_threshold=reached.get("text"))


def told(hits: Sequence[Hit]) -> list[tuple[uuid.UUID, bool, float]]:
    return [(hit.vector_id, hit.is_accepted, round(hit.similarity, 5)) for hit in hits]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 90),
    later=st.integers(0, 9),
    gone=st.integers(0, 9),
    image_width=st.sampled_from([None, IMAGE_WIDTH]),
    threshold=st.sampled_from([-0.9, 0.3, 0.69]),
    k=st.sampled_from([1, 3, 64]),
)
@settings(max_examples=60)
def test_a_search_with_codes_tells_what_one_without_does(
    *,
    seed: int,
    count: int,
    later: int,
    gone: int,
    image_width: int | None,
    threshold: float,
    k: int,
) -> None:
    rng = np.random.default_rng(seed)
    first, second = (
        some_keys(rng, count=number, image_width=image_width, threshold=threshold)
        for number in (count, later)
    )
    query = first[0].embeddings[0] + 0.1 * rng.standard_normal(DIMENSION).astype(np.float32)
    first = [
        just_accepting(item, query, image_width=image_width, by=float(rng.choice([1e-4, -1e-4])))
        if rng.random() < 0.2
        else item
        for item in first
    ]
    changed = {item.vector_id for item in first[:gone]}
    snapshots = []
    for has_codes in (False, True):
        made = Snapshot.build(
            "space", epoch=1, dimension=DIMENSION, keys=first, image_width=image_width
        )
        if has_codes:
            made.encode()
        snapshots.append(made.update(epoch=2, changed=changed, keys=second))
    among = {item.vector_id for item in [*first, *second] if rng.random() < 0.8}
    for only in (None, among):
        for workspace in ("default", "other"):
            plain, coded = (
                told(
                    snapshot.search(
                        query,
                        backbone_fingerprint=FINGERPRINT,
                        statuses=("ready", "unproven"),
                        k=k,
                        workspace=workspace,
                        among=only,
                    )
                )
                for snapshot in snapshots
            )
            assert coded == plain


@pytest.mark.parametrize("outlier", [1.0, 40.0])
def test_no_similarity_is_off_by_more_than_the_codes_say(outlier: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5000, DIMENSION)).astype(np.float32) + 3.0
    rows[:, 0] *= outlier
    rows[:, 1] = 0.5
    rows = unit_rows(rows)
    codes = RowCodes.of(rows)
    assert codes.count == len(rows)
    assert codes.error < 0.01
    for query in rng.standard_normal((20, DIMENSION)).astype(np.float32):
        missed = np.abs(codes.products(query) - rows @ query).max()
        assert 0 < missed <= codes.error * np.linalg.norm(query)


def test_codes_are_made_by_one_thread() -> None:
    rows = unit_rows(np.random.default_rng(0).standard_normal((20_000, 64)))
    counts: list[int] = []

    def make() -> None:
        faiss.omp_set_num_threads(4)
        for _ in range(2):
            counts.append(len(list(Path("/proc/self/task").iterdir())))
            RowCodes.of(rows)
        counts.append(len(list(Path("/proc/self/task").iterdir())))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert len(set(counts)) == 1


def test_codes_spare_most_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    snapshot = Snapshot.build(
        "space",
        epoch=1,
        dimension=64,
        keys=[
            VectorKeys(
                vector_id=new_id(),
                name="task",
                backbone_fingerprint=FINGERPRINT,
                status="ready",
                embeddings=unit_rows(rng.standard_normal((2, 64))),
                threshold=0.9,
            )
            for _ in range(2000)
        ],
    )
    snapshot.encode()
    read: list[int] = []
    products = rows_module._products

    def counted(query: Float32Array, rows: Float32Array) -> Float32Array:
        read.append(len(rows))
        return products(query, rows)

    monkeypatch.setattr(rows_module, "_products", counted)
    hits = snapshot.search(
        rng.standard_normal(64), backbone_fingerprint=FINGERPRINT, statuses=("ready",), k=10
    )
    assert len(hits) == 10
    assert sum(read) < 400


def test_codes_are_wanted_when_many_rows_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "LEAST_CODED_ROWS", 10)
    rows = unit_rows(np.random.default_rng(0).standard_normal((100, DIMENSION)))
    block = make_block([rows[:9]])
    assert not block.wants_codes
    for used, wants in ((10, True), (100, True)):
        block.rows[:used], block.used = rows[:used], used
        assert block.wants_codes is wants
    block.encode()
    assert not block.wants_codes
    block.used = 124
    assert not block.wants_codes
    block.used = 125
    assert block.wants_codes
