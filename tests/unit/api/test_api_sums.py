from app.api.steer.generation import notes_on_sum
from app.api.steer.vector_selection import ChosenVector
from tests.fakes.records import vector_record


def test_a_sum_of_task_vectors_is_warned_about_and_one_with_the_policy_is_not() -> None:
    shapes = ChosenVector(record=vector_record(name="shapes"), strength=1.0)
    colours = ChosenVector(record=vector_record(name="colours"), strength=0.5, source="retrieval")
    policy = ChosenVector(record=vector_record(name="safe"), strength=1.0, source="policy")
    (note,) = notes_on_sum([shapes, policy, colours])
    assert "shapes@1" in note
    assert "colours@1" in note
    assert "safe" not in note
    assert notes_on_sum([shapes, policy]) == ()
    assert notes_on_sum([policy]) == notes_on_sum([]) == ()
    idle = ChosenVector(record=vector_record(name="idle"), strength=0.0)
    assert notes_on_sum([shapes, idle]) == ()
