import torch
from hypothesis import given
from hypothesis import strategies as st

from app.rpc.generation import SamplingParams
from app.worker.engine.scheduler import CHEAP_TOKENS, Scheduler
from app.worker.engine.sequence import Sequence

WAITING = st.lists(st.tuples(st.integers(1, 400), st.sampled_from("ab")), min_size=1, max_size=30)


def _waiting(index: int, length: int, layout: str = "a") -> Sequence:
    return Sequence(
        id=str(index),
        inputs={"input_ids": torch.zeros((1, length)), layout: torch.zeros(1)},
        sampling=SamplingParams(),
    )


def _filled(
    prompts: list[tuple[int, str]], *, max_batch_tokens: int = 8192, max_padding: float = 1.5
) -> Scheduler:
    scheduler = Scheduler(
        max_batch_tokens=max_batch_tokens, is_varlen=lambda _: False, max_padding=max_padding
    )
    for index, (length, layout) in enumerate(prompts):
        scheduler.add(_waiting(index, length, layout))
    return scheduler


def _ids(batch: list[Sequence]) -> list[str]:
    return [sequence.id for sequence in batch]


@given(prompts=WAITING, free_rows=st.integers(1, 8))
def test_everyone_runs_once_and_the_head_of_the_queue_is_always_next(
    prompts: list[tuple[int, str]], free_rows: int
) -> None:
    scheduler = _filled(prompts)
    left = [str(index) for index in range(len(prompts))]
    while len(scheduler):
        batch = _ids(scheduler.next_batch(free_rows=free_rows))
        assert batch[0] == left[0]
        assert batch == [one for one in left if one in batch]
        left = [one for one in left if one not in batch]
    assert left == []


@given(prompts=WAITING, free_rows=st.integers(1, 8))
def test_a_batch_has_one_layout_and_bounded_padding(
    prompts: list[tuple[int, str]], free_rows: int
) -> None:
    scheduler = _filled(prompts, max_batch_tokens=1000, max_padding=1.5)
    while len(scheduler):
        chosen = [prompts[int(one)] for one in _ids(scheduler.next_batch(free_rows=free_rows))]
        lengths = [length for length, _ in chosen]
        assert len({layout for _, layout in chosen}) == 1
        assert len(chosen) <= free_rows
        is_cheap = len(chosen) * max(lengths) <= CHEAP_TOKENS
        assert is_cheap or max(lengths) <= 1.5 * min(lengths)
        assert len(chosen) == 1 or len(chosen) * max(lengths) <= 1000


def test_short_prompts_go_together_however_their_lengths_differ() -> None:
    prompts = [(5, "a"), (30, "a"), (100, "a"), (400, "a")]
    assert _ids(_filled(prompts).next_batch(free_rows=8)) == ["0", "1", "2"]


def test_packable_prompts_go_together_by_the_tokens_that_they_really_have() -> None:
    scheduler = Scheduler(max_batch_tokens=8192, is_varlen=lambda sequence: sequence.id != "4")
    lengths = (10, 200, 30, 250, 40, 9)
    for index, length in enumerate(lengths):
        scheduler.add(_waiting(index, length))
    chosen = _ids(scheduler.next_batch(free_rows=8))
    # The fourth does not fit with the first three any more, and the fifth would be padded.
    assert chosen == ["0", "1", "2", "3", "5"]
    assert sum(lengths[int(one)] for one in chosen) <= CHEAP_TOKENS


def test_nothing_is_handed_out_without_a_free_row_or_without_anyone_waiting() -> None:
    scheduler = _filled([(5, "a")])
    assert scheduler.next_batch(free_rows=0) == []
    assert len(scheduler) == 1
    assert _filled([]).next_batch(free_rows=4) == []


def test_a_removed_sequence_does_not_run() -> None:
    scheduler = _filled([(5, "a"), (5, "a")])
    assert scheduler.remove("0")
    assert not scheduler.remove("0")
    assert _ids(scheduler.next_batch(free_rows=4)) == ["1"]
