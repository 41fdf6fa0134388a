import numpy as np
import pytest

from app.core.identifiers import new_id
from app.library.search.index import Snapshot
from app.library.search.parts import cannot_tell_apart, least_lead, nearest_of_each
from app.library.search.verdicts import Hit
from app.library.task_keys import Float32Array, VectorKeys
from tests.fakes.vectors import FINGERPRINT

WIDTH = 16


def place(kind: int, *, seed: int, count: int, spread: float) -> Float32Array:
    rng = np.random.default_rng([seed, kind])
    rows = rng.normal(size=(count, WIDTH)) * spread
    rows[:, kind] += 1.0
    half: Float32Array = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return half


def rows_of(image: int, text: int, *, seed: int = 0, count: int = 40) -> Float32Array:
    parts = [
        place(image, seed=seed, count=count, spread=0.1),
        place(text, seed=seed + 100, count=count, spread=0.0),
    ]
    rows: Float32Array = (np.concatenate(parts, axis=1) * 0.5**0.5).astype(np.float32)
    return rows


def task(image: int, text: int, *, name: str, seed: int = 0, threshold: float = 0.8) -> VectorKeys:
    return VectorKeys(
        vector_id=new_id(),
        name=name,
        backbone_fingerprint=FINGERPRINT,
        status="ready",
        embeddings=rows_of(image, text, seed=seed),
        threshold=threshold,
        text_threshold=0.9,
    )


def build(*keys: VectorKeys) -> Snapshot:
    return Snapshot.build("space", epoch=1, dimension=2 * WIDTH, image_width=WIDTH, keys=keys)


def ask(snapshot: Snapshot, query: Float32Array) -> list[Hit]:
    return snapshot.search(
        query, backbone_fingerprint=FINGERPRINT, statuses=("ready",), k=len(query)
    )


def accepted(snapshot: Snapshot, query: Float32Array) -> list[str]:
    return [hit.name for hit in ask(snapshot, query) if hit.is_accepted]


def test_a_fitting_picture_makes_up_for_no_foreign_question() -> None:
    snapshot = build(task(0, 0, name="colour"))
    assert accepted(snapshot, rows_of(0, 0, seed=5)[0]) == ["colour"]
    assert accepted(snapshot, rows_of(0, 1, seed=5)[0]) == []
    assert accepted(snapshot, rows_of(1, 0, seed=5)[0]) == []


def test_the_score_is_that_of_the_part_that_fits_least() -> None:
    snapshot = build(task(0, 0, name="colour"))
    (hit,) = ask(snapshot, rows_of(0, 1, seed=5)[0])
    assert hit.score == pytest.approx(0.0, abs=1e-5)
    assert hit.threshold == pytest.approx(0.9)


@pytest.mark.parametrize("part", [slice(0, WIDTH), slice(WIDTH, None)])
def test_a_query_of_one_part_is_held_against_its_own_threshold(part: slice) -> None:
    snapshot = build(task(0, 0, name="colour"))
    for image, text, names in ((0, 0, ["colour"]), (1, 1, [])):
        query = rows_of(image, text, seed=5)[0]
        query[part] = 0
        assert accepted(snapshot, query) == names


def test_those_that_accept_come_before_nearer_ones_that_do_not() -> None:
    strict = task(0, 0, name="strict", threshold=0.99999)
    snapshot = build(strict, task(0, 0, name="loose", seed=9, threshold=0.5))
    hits = ask(snapshot, rows_of(0, 0, seed=5)[0])
    assert [(hit.name, hit.is_accepted) for hit in hits] == [("loose", True), ("strict", False)]


def test_a_task_that_joins_the_library_takes_its_pictures_from_a_neighbour() -> None:
    loose = task(0, 0, name="loose", threshold=0.0)
    query = rows_of(1, 0, seed=5)[0]
    alone = build(loose)
    assert accepted(alone, query) == ["loose"]
    joined = alone.update(epoch=2, changed=set(), keys=[task(1, 3, name="neighbour")])
    assert accepted(joined, query) == []
    assert accepted(joined, rows_of(0, 0, seed=5)[0]) == ["loose"]


def test_versions_of_a_name_need_no_lead_over_each_other() -> None:
    versions = [task(0, 0, name="colour", seed=seed) for seed in range(3)]
    snapshot = build(*versions)
    assert accepted(snapshot, rows_of(0, 0, seed=0)[0]) == ["colour"] * 3


def test_a_neighbour_takes_its_pictures_whoever_else_has_the_same_pictures() -> None:
    loose = task(0, 0, name="loose", threshold=0.0)
    others = [task(0, 1, name="same pictures", seed=1), task(1, 3, name="neighbour")]
    snapshot = build(loose, *others)
    assert accepted(snapshot, rows_of(1, 0, seed=5)[0]) == []
    assert accepted(snapshot, rows_of(0, 0, seed=5)[0]) == ["loose"]


def test_tasks_with_the_same_pictures_take_none_from_each_other() -> None:
    own, same, other = rows_of(0, 0), rows_of(0, 1, seed=1), rows_of(1, 1)
    assert least_lead(own, same, image_width=WIDTH) == -np.inf
    assert -0.5 < least_lead(own, other, image_width=WIDTH) < 0.5


def test_a_picture_must_lead_over_the_nearest_of_every_name() -> None:
    codes = np.array([7, 7, 7, 7, 8, 9, 9], dtype=np.int32)
    cosines = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.4], dtype=np.float32)
    assert nearest_of_each(codes, cosines) == [0, 4, 6]
    assert nearest_of_each(codes, cosines, limit=1) == [0]
    assert nearest_of_each(codes[:0], cosines[:0]) == []
    crowd = np.repeat(np.arange(3, dtype=np.int32), 100)
    far = np.linspace(1, 0, 300, dtype=np.float32)
    assert nearest_of_each(crowd, far, limit=3) == [0, 100, 200]


def test_only_tasks_with_the_same_pictures_and_questions_cannot_be_told_apart() -> None:
    one = task(0, 0, name="english")
    same, other = task(0, 0, name="spanish", seed=1), task(0, 1, name="shape", seed=2)
    assert cannot_tell_apart(one, same, image_width=WIDTH)
    assert not cannot_tell_apart(one, other, image_width=WIDTH)
    assert cannot_tell_apart(one, other, image_width=WIDTH, parts=["image"])


def test_pictures_of_several_questions_ask_for_no_larger_lead() -> None:
    own, other = rows_of(0, 0), rows_of(1, 1)
    repeated = np.repeat(own, 3, axis=0)
    asked = {"image_width": WIDTH}
    assert least_lead(repeated, other, **asked) == pytest.approx(
        least_lead(own, other, **asked), abs=0.05
    )
