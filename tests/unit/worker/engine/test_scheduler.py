import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import ConflictError
from app.worker.engine.scheduler import CHEAP_TOKENS, Scheduler, Waiting

WAITING = st.lists(st.tuples(st.integers(1, 400), st.sampled_from("ab")), min_size=1, max_size=30)


def _filled(prompts: list[tuple[int, str]], **options: float) -> Scheduler:
    scheduler = Scheduler(**{"max_batch_tokens": 8192, **options})  # type: ignore[arg-type] # options of either type
    for index, (length, layout) in enumerate(prompts):
        scheduler.add(Waiting(id=str(index), num_tokens=length, layout=layout))
    return scheduler


@given(prompts=WAITING, free_rows=st.integers(1, 8))
def test_everyone_runs_once_and_the_head_of_the_queue_is_always_next(
    prompts: list[tuple[int, str]], free_rows: int
) -> None:
    scheduler = _filled(prompts)
    left = [str(index) for index in range(len(prompts))]
    while len(scheduler):
        batch = scheduler.next_batch(free_rows=free_rows)
        assert batch[0] == left[0]
        assert list(batch) == [one for one in left if one in batch]
        left = [one for one in left if one not in batch]
    assert left == []


@given(prompts=WAITING, free_rows=st.integers(1, 8))
def test_a_batch_has_one_layout_and_bounded_padding(
    prompts: list[tuple[int, str]], free_rows: int
) -> None:
    scheduler = _filled(prompts, max_batch_tokens=1000, max_padding=1.5)
    while len(scheduler):
        chosen = [prompts[int(one)] for one in scheduler.next_batch(free_rows=free_rows)]
        lengths = [length for length, _ in chosen]
        assert len({layout for _, layout in chosen}) == 1
        assert len(chosen) <= free_rows
        is_cheap = len(chosen) * max(lengths) <= CHEAP_TOKENS
        assert is_cheap or max(lengths) <= 1.5 * min(lengths)
        assert len(chosen) == 1 or len(chosen) * max(lengths) <= 1000


def test_short_prompts_go_together_however_their_lengths_differ() -> None:
    prompts = [(5, "a"), (30, "a"), (100, "a"), (400, "a")]
    assert _filled(prompts).next_batch(free_rows=8) == ("0", "1", "2")


def test_packable_prompts_go_together_by_the_tokens_that_they_really_have() -> None:
    scheduler = Scheduler(max_batch_tokens=8192)
    lengths = (10, 200, 30, 250, 40, 9)
    for index, length in enumerate(lengths):
        scheduler.add(Waiting(id=str(index), num_tokens=length, layout="a", is_varlen=index != 4))
    chosen = scheduler.next_batch(free_rows=8)
    # The fourth does not fit with the first three any more, and the fifth would be padded.
    assert chosen == ("0", "1", "2", "3", "5")
    assert sum(lengths[int(one)] for one in chosen) <= CHEAP_TOKENS


def test_nothing_is_handed_out_without_a_free_row_or_without_anyone_waiting() -> None:
    scheduler = _filled([(5, "a")])
    assert scheduler.next_batch(free_rows=0) == ()
    assert len(scheduler) == 1
    assert _filled([]).next_batch(free_rows=4) == ()


def test_a_removed_sequence_does_not_run() -> None:
    scheduler = _filled([(5, "a"), (5, "a")])
    assert scheduler.remove("0")
    assert not scheduler.remove("0")
    assert scheduler.next_batch(free_rows=4) == ("1",)


def test_a_sequence_cannot_wait_twice() -> None:
    scheduler = _filled([(5, "a")])
    with pytest.raises(ConflictError):
        scheduler.add(Waiting(id="0", num_tokens=5, layout="a"))
