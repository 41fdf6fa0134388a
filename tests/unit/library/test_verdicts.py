import uuid
from collections.abc import Mapping, Sequence

from app.core.identifiers import new_id
from app.library.records import VectorRecord
from app.library.search.verdicts import AbstainReason, Hit, choose
from tests.fakes.records import vector_record


def hit(name: str, similarity: float = 0.9, *, is_accepted: bool = True) -> Hit:
    return Hit(new_id(), name, similarity, 0.5, similarity, is_accepted)


def judge(
    hits: Sequence[Hit],
    *,
    gains: Mapping[uuid.UUID, float] | None = None,
    tags: Mapping[uuid.UUID, str] | None = None,
    same: Sequence[str] = (),
    margin: float = 0.0,
    prefer: str = "preferred",
) -> tuple[list[Hit], AbstainReason | None]:
    records: dict[uuid.UUID, VectorRecord] = {
        one.vector_id: vector_record(
            id=one.vector_id,
            name=one.name,
            tags=(tags[one.vector_id],) if tags and one.vector_id in tags else (),
        )
        for one in hits
    }
    return choose(
        hits,
        records,
        gains=gains or {},
        margin=margin,
        prefer=prefer,
        alike=same,
    )


def test_nothing_and_nothing_near_are_told_apart() -> None:
    assert judge([])[1] == "no-vectors"
    assert judge([hit("a", is_accepted=False)])[1] == "below-threshold"


def test_the_nearest_that_accepts_is_chosen() -> None:
    near, far = hit("a", 0.9), hit("b", 0.7)
    assert judge([near, far])[0][0] == near
    assert judge([near, far])[1] is None


def test_held_out_gain_breaks_ties_between_names() -> None:
    near, better = hit("a", 0.9), hit("b", 0.89)
    assert judge([near, better], gains={better.vector_id: 0.2})[0][0] == better
    far = hit("b", 0.8)
    assert judge([near, far], gains={far.vector_id: 0.2})[0][0] == near


def test_versions_of_a_name_do_not_compete() -> None:
    old, new = hit("a", 0.9), hit("a", 0.7)
    assert judge([old, new])[0][0] == new
    assert judge([old, new], gains={old.vector_id: 0.1, new.vector_id: -0.1})[0][0] == old
    assert judge([old, new], tags={old.vector_id: "preferred"})[0][0] == old
    assert judge([old, new], margin=0.1)[1] is None


def test_tasks_that_no_key_tells_apart_need_a_preference() -> None:
    one, other = hit("english", 0.95), hit("spanish", 0.8)
    same = ["english", "spanish"]
    assert judge([one, other], same=same, gains={one.vector_id: 0.5})[1] == "ambiguous"
    found = judge([one, other], same=same, tags={other.vector_id: "preferred"})
    assert (found[0][0], found[1]) == (other, None)
    both = {one.vector_id: "preferred", other.vector_id: "preferred"}
    assert judge([one, other], same=same, tags=both)[1] == "ambiguous"
    by_name = judge([one, other], same=same, prefer="spanish")
    assert (by_name[0][0], by_name[1]) == (other, None)


def test_a_margin_is_kept_over_other_names() -> None:
    one, other = hit("a", 0.9), hit("b", 0.85, is_accepted=False)
    assert judge([one, other], margin=0.1)[1] == "margin-too-small"
    assert judge([one, other], margin=0.04)[1] is None


def test_a_twin_that_misses_its_own_threshold_is_a_twin_still() -> None:
    one, twin = hit("english", 0.95), hit("spanish", 0.9, is_accepted=False)
    same = ["english", "spanish"]
    assert judge([one, twin], same=same)[1] == "ambiguous"
    assert judge([one, twin], same=same, tags={twin.vector_id: "preferred"})[0][0] == twin


def test_without_a_margin_a_nearer_one_that_does_not_accept_changes_nothing() -> None:
    one, other = hit("a", 0.8), hit("b", 0.9, is_accepted=False)
    assert judge([one, other])[1] is None
