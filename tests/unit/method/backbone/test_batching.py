from hypothesis import given
from hypothesis import strategies as st

from app.method.backbone.batching import token_batches


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 600), st.integers(1, 20))
def test_every_sequence_is_in_one_batch_within_the_budget(
    lengths: list[int], budget: int, rows: int
) -> None:
    batches = token_batches(lengths, token_budget=budget, max_rows=rows)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= rows
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


def test_similar_lengths_go_together() -> None:
    assert token_batches([5, 100, 6, 99], token_budget=200, max_rows=8) == [[1, 3], [2, 0]]


def test_a_batch_takes_no_more_bytes_than_it_may() -> None:
    batches = token_batches(
        [9, 8, 7, 6, 5], token_budget=100, max_rows=8, sizes=[30, 80, 20, 150, 100], most_bytes=100
    )
    assert batches == [[0], [1, 2], [3], [4]]
    assert token_batches([9, 8], token_budget=100, max_rows=8, sizes=[0, 0]) == [[0, 1]]
