from benchmarks.abstention.aside import ASIDE_FOREIGN, ASIDE_STORED
from benchmarks.abstention.figures import NOTHING, Answer, confusion, three_rates
from benchmarks.abstention.tasks import FOREIGN, STORED, looks_like


def _answers(*names: str) -> list[Answer]:
    return [Answer(name=name) for name in names]


def test_rates_are_means_over_tasks_with_the_worst_of_each() -> None:
    own = {"a": _answers("a", "a", "b", NOTHING), "b": _answers("b", "b", "b", "b")}
    foreign = {"c": _answers("a", NOTHING), "d": _answers(NOTHING, NOTHING)}
    found = three_rates(own, foreign)
    assert found["top1"]["mean"] == round((2 / 3 + 1) / 2, 4)
    assert found["top1"]["worst_task"] == "a"
    assert (found["false_accept"]["mean"], found["false_accept"]["worst"]) == (0.25, 0.5)
    assert (found["false_refusal"]["mean"], found["false_refusal"]["worst_task"]) == (0.125, "a")
    assert confusion(own)["a"] == {"a": 2, "b": 1, NOTHING: 1}


def test_tasks_kept_aside_are_others_and_have_pictures_of_their_own() -> None:
    chosen = (*STORED, *FOREIGN)
    names = [task.name for task in (*chosen, *ASIDE_STORED, *ASIDE_FOREIGN)]
    assert len(set(names)) == len(names)
    assert not any(looks_like(one, other) for one in ASIDE_STORED for other in chosen)
