import torch
from hypothesis import given
from hypothesis import strategies as st

from app.rpc.generation import SamplingParams
from app.worker.engine.scheduler import CHEAP_TOKENS, MAX_BATCH_TOKENS, next_batch
from app.worker.engine.sequence import Sequence

WAITING = st.lists(st.tuples(st.integers(1, 400), st.sampled_from("ab")), min_size=1, max_size=30)


def _waiting(index: int, length: int, layout: str = "a") -> Sequence:
    return Sequence(
        id=str(index),
        inputs={"input_ids": torch.zeros((1, length)), layout: torch.zeros(1)},
        sampling=SamplingParams(),
    )


def _prompts(prompts: list[tuple[int, str]]) -> dict[str, Sequence]:
    return {str(i): _waiting(i, length, layout) for i, (length, layout) in enumerate(prompts)}


def _next(waiting: dict[str, Sequence], *, free_rows: int) -> list[str]:
    """The ids of the next batch, which waits no longer."""
    batch = next_batch(waiting.values(), free_rows=free_rows, is_varlen=lambda _: False)
    for sequence in batch:
        del waiting[sequence.id]
    return [sequence.id for sequence in batch]


@given(prompts=WAITING, free_rows=st.integers(1, 8))
def test_everyone_runs_once_and_the_head_of_the_queue_is_always_next(
    prompts: list[tuple[int, str]], free_rows: int
) -> None:
    waiting = _prompts(prompts)
    left = [str(index) for index in range(len(prompts))]
    while waiting:
        batch = _next(waiting, free_rows=free_rows)
        assert batch[0] == left[0]
        assert batch == [one for one in left if one in batch]
        left = [one for one in left if one not in batch]
    assert left == []


@given(prompts=WAITING, free_rows=st.integers(1, 30))
def test_a_batch_has_one_layout_and_bounded_padding(
    prompts: list[tuple[int, str]], free_rows: int
) -> None:
    waiting = _prompts(prompts)
    while waiting:
        chosen = [prompts[int(one)] for one in _next(waiting, free_rows=free_rows)]
        lengths = [length for length, _ in chosen]
        assert len({layout for _, layout in chosen}) == 1
        assert len(chosen) <= free_rows
        is_cheap = len(chosen) * max(lengths) <= CHEAP_TOKENS
        assert is_cheap or max(lengths) <= 1.5 * min(lengths)
        assert len(chosen) * max(lengths) <= MAX_BATCH_TOKENS


def test_a_prompt_of_more_tokens_than_a_batch_may_have_goes_alone() -> None:
    waiting = _prompts([(MAX_BATCH_TOKENS + 1, "a"), (MAX_BATCH_TOKENS, "a"), (9, "a"), (9, "a")])
    assert [_next(waiting, free_rows=8) for _ in range(3)] == [["0"], ["1"], ["2", "3"]]


def test_short_prompts_go_together_however_their_lengths_differ() -> None:
    waiting = _prompts([(5, "a"), (30, "a"), (100, "a"), (400, "a")])
    assert _next(waiting, free_rows=8) == ["0", "1", "2"]


def test_packable_prompts_go_together_by_the_tokens_that_they_really_have() -> None:
    lengths = (10, 200, 30, 250, 40, 9)
    waiting = _prompts([(length, "a") for length in lengths])
    batch = next_batch(waiting.values(), free_rows=8, is_varlen=lambda one: one.id != "4")
    chosen = [one.id for one in batch]
    # The fourth does not fit with the first three any more, and the fifth would be padded.
    assert chosen == ["0", "1", "2", "3", "5"]
    assert sum(lengths[int(one)] for one in chosen) <= CHEAP_TOKENS


def test_nothing_is_handed_out_without_a_free_row_or_without_anyone_waiting() -> None:
    assert _next(_prompts([(5, "a")]), free_rows=0) == []
    assert _next({}, free_rows=4) == []
